"""Which runs are one point of a report, and how points and methods are named."""

import statistics

import pytest
from helpers.made_runs import made_run, made_sweep

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.headline import Headline
from diffq_exp.results.summary import make_report


def problem_of(outputs, **options):
    (problem,) = make_report(find_runs([outputs]), **options).problems
    return problem


def test_runs_that_differ_in_the_seed_are_one_point(tmp_path):
    scores = [(0.91, 0.10), (0.95, 0.13), (0.96, 0.10)]
    for seed, (accuracy, mb) in enumerate(scores):
        made_run(tmp_path, ["quantizer=qat", "bits=3", f"seed={seed}"], accuracy=accuracy, mb=mb)
    made_run(tmp_path, ["quantizer=qat", "bits=4", "seed=0"], accuracy=0.97, mb=0.2)
    three, single = problem_of(tmp_path).points
    assert [run.seed for run in three.runs] == [0, 1, 2]
    assert (three.score, three.score_std) == pytest.approx((0.94, statistics.stdev([0.91, 0.95, 0.96])))
    assert (three.size, three.size_std) == pytest.approx((0.11, statistics.stdev([0.10, 0.13, 0.10])))
    assert (single.score_std, single.size_std) == (None, None)
    assert (three.keys, single.label, single.method) == ({"bits": 3}, "bits=4", "qat")


def test_post_training_runs_of_several_seeds_are_one_point(tmp_path):
    """Each begins from the float32 network of its own seed: init_from differs along with the seed."""
    for seed in (0, 1):
        made_run(tmp_path, ["quantizer=ptq", "bits=4", f"seed={seed}"])
    (point,) = problem_of(tmp_path).points
    assert len(point.runs) == 2


def test_a_source_that_was_typed_counts_by_its_point(tmp_path):
    """Fine-tuning from seeds of one network is averaged, from another network it is not."""
    for name in ("none", "lsq"):
        for seed in (0, 1):
            source = made_run(tmp_path, [f"quantizer={name}", f"seed={seed}"]).name[-10:]
            made_run(tmp_path, ["quantizer=qat", f"seed={seed}", f"init_from={source}"])
    points = [point for point in problem_of(tmp_path).points if point.method == "qat"]
    assert [len(point.runs) for point in points] == [2, 2]


@pytest.mark.parametrize(("averaged", "points"), [((), 4), (("seed",), 2), (("lr",), 2), (("seed", "lr"), 1)])
def test_other_keys_can_be_averaged(tmp_path, averaged, points):
    for seed in (0, 1):
        for lr in (0.1, 0.2):
            made_run(tmp_path, [f"seed={seed}", f"lr={lr}"])
    found = problem_of(tmp_path, average_over=averaged).points
    assert len(found) == points
    assert all(set(point.keys) == {"seed", "lr"} - set(averaged) for point in found)


@pytest.mark.parametrize(
    ("by", "methods"),
    [
        (("quantizer",), {"diffq", "qat"}),
        (("noise", "param"), {"uniform bits", "gaussian noise", "qat"}),  # qat knows neither
        (("quantizer", "group_size"), {"diffq group_size=8", "diffq group_size=1", "qat"}),
    ],
)
def test_methods_are_told_apart_by_any_keys(tmp_path, by, methods):
    made_run(tmp_path, ["noise=uniform", "param=bits"])
    made_run(tmp_path, ["noise=gaussian", "param=noise", "group_size=1"])
    made_run(tmp_path, ["quantizer=qat"])
    assert set(problem_of(tmp_path, by=by).methods) == methods


def test_labels_hold_what_varies_and_nothing_else(tmp_path):
    """Not the nodes' own names for plain keys, nor what differs because the quantizer does."""
    made_sweep(tmp_path, seeds=1)
    labels = {point.method: set(point.keys) for point in problem_of(tmp_path).points}
    assert list(problem_of(tmp_path).methods) == ["diffq", "lsq", "ptq", "qat", "none"]  # float32 last
    assert labels == {"diffq": {"penalty"}, "qat": {"bits"}, "lsq": {"bits"}, "ptq": {"bits"}, "none": set()}


def test_an_old_run_and_a_new_one_are_a_point(tmp_path):
    """Old records have no headline."""
    made_run(tmp_path, ["penalty=3", "seed=0"])
    made_run(tmp_path, ["penalty=3", "seed=1"], headline=Headline(chance=0.1).to_json())
    (point,) = problem_of(tmp_path).points
    assert [run.record.headline is None for run in point.runs] == [True, False]
