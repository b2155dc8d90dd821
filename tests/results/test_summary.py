"""The comparison of runs: points, methods, the float32 line, the marks."""

import statistics

import pytest
from helpers.made_runs import BITS_PER_BYTE, TEXT, made_run, made_sweep

from diffq_exp.results.discovery import find_runs, read_sweep, runs_of
from diffq_exp.results.headline import Headline
from diffq_exp.results.summary import make_report


def report_of(outputs, **how):
    return make_report(find_runs([outputs]), **how)


def problem_of(outputs, **how):
    (problem,) = report_of(outputs, **how).problems
    return problem


def test_runs_that_differ_in_the_seed_are_one_point(tmp_path):
    scores = [(0.91, 0.10), (0.95, 0.13), (0.96, 0.10)]
    for seed, (accuracy, mb) in enumerate(scores):
        made_run(tmp_path, ["quantizer=qat", "bits=3", f"seed={seed}"], accuracy=accuracy, mb=mb)
    made_run(tmp_path, ["quantizer=qat", "bits=4", "seed=0"], accuracy=0.97, mb=0.2)
    three, one = problem_of(tmp_path).points
    assert [run.seed for run in three.runs] == [0, 1, 2]
    assert (three.score, three.score_std) == pytest.approx((0.94, statistics.stdev([0.91, 0.95, 0.96])))
    assert (three.size, three.size_std) == pytest.approx((0.11, statistics.stdev([0.10, 0.13, 0.10])))
    assert (one.score_std, one.size_std) == (None, None)
    assert (three.keys, one.label, one.method) == ({"bits": 3}, "bits=4", "qat")


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


def test_each_network_and_data_set_is_a_problem_of_its_own(tmp_path):
    for dataset, model in (("digits", "vit"), ("digits", "cnn"), ("mnist", "cnn")):
        made_run(tmp_path, [f"dataset={dataset}", f"model={model}", "quantizer=qat", "bits=3"])
    problems = report_of(tmp_path).problems
    assert [problem.title for problem in problems] == ["digits, cnn", "digits, vit", "mnist, cnn"]


def test_float32_is_the_mean_of_its_runs(tmp_path):
    for seed, accuracy in enumerate((0.97, 0.99)):
        made_run(tmp_path, ["quantizer=none", f"seed={seed}"], accuracy=accuracy, mb=1.08)
    made_run(tmp_path, ["quantizer=ptq", "bits=8"], accuracy=0.5)
    base = problem_of(tmp_path).float32
    assert (base.score, base.std, base.mb, base.runs) == pytest.approx(
        (0.98, statistics.stdev([0.97, 0.99]), 1.08, 2)
    )


def test_of_several_float32_configurations_the_best_is_the_mark(tmp_path):
    made_run(tmp_path, ["quantizer=none", "lr=1"], accuracy=0.5)
    made_run(tmp_path, ["quantizer=none", "lr=0.01"], accuracy=0.9)
    assert problem_of(tmp_path).float32.score == 0.9


def test_without_float32_runs_post_training_ones_say_what_they_began_from(tmp_path):
    """Each source counts once, at however many widths it was quantized."""
    for seed, accuracy in ((0, 0.8), (1, 0.9)):
        for bits in (2, 4)[: seed + 1]:
            scores = {"accuracy": 0.7, "loss": 1.0, "float32_accuracy": accuracy}
            made_run(tmp_path, ["quantizer=ptq", f"bits={bits}", f"seed={seed}"], test=scores)
    base = problem_of(tmp_path).float32
    assert (base.score, base.runs) == (pytest.approx(0.85), 2)


def test_without_any_float32_the_marks_are_empty(tmp_path):
    made_run(tmp_path, ["quantizer=qat", "bits=3"])
    problem = problem_of(tmp_path)
    assert problem.float32 is None and set(problem.methods["qat"].within.values()) == {None}


def test_marks_of_a_method(tmp_path):
    made_run(tmp_path, ["quantizer=none"], accuracy=0.990, mb=1.0)
    for bits, accuracy, mb in (
        (2, 0.970, 0.06),
        (3, 0.981, 0.1),
        (4, 0.985, 0.14),
        (8, 0.989, 0.26),
        (9, 0.980, 0.3),
    ):
        made_run(tmp_path, ["quantizer=qat", f"bits={bits}"], accuracy=accuracy, mb=mb)
    problem = problem_of(tmp_path, sizes=[0.05, 0.1, 0.2])
    qat = problem.methods["qat"]
    assert {below: point.keys["bits"] for below, point in qat.within.items()} == {0.5: 4, 1.0: 3}
    assert {mb: point and point.keys["bits"] for mb, point in qat.at.items()} == {0.05: None, 0.1: 3, 0.2: 4}
    assert [point.keys["bits"] for point in qat.front] == [2, 3, 4, 8]
    assert (problem.headline.chance, problem.float32_mb) == (0.1, 1.067)
    assert [point.method for point in problem.front] == ["qat"] * 4 + ["none"]


def test_hypervolume_is_in_points_times_halvings(tmp_path):
    made_run(tmp_path, ["quantizer=qat"], accuracy=0.9, mb=1.067 / 4)
    problem = problem_of(tmp_path)
    assert problem.hypervolume == problem.methods["qat"].hypervolume == pytest.approx(80 * 2)


def test_sizes_are_fractions_of_float32_that_some_run_reaches(tmp_path):
    made_run(tmp_path, ["quantizer=qat"], mb=1.067 / 20)
    assert list(problem_of(tmp_path).methods["qat"].at) == [pytest.approx(1.067 / part) for part in (16, 8, 4)]


def test_the_papers_size_is_another_report(tmp_path):
    made_run(tmp_path, mb=0.1)
    assert [problem_of(tmp_path, size=kind).points[0].size for kind in ("file", "true")] == [
        0.1,
        pytest.approx(0.096),
    ]


def test_a_partial_sweep_says_what_is_missing_and_what_failed(tmp_path):
    sweep = read_sweep(tmp_path, made_sweep(tmp_path, seeds=2).stem)
    report = make_report(runs_of(sweep, find_runs([tmp_path])), sweep)
    assert [run.status for run in report.others] == ["diverged", "failed", "missing", "missing"]
    assert [run.reason for run in report.others[:2]] == ["loss is nan in epoch 1, step 3", "OSError: disk full"]
    assert len(report.runs) == 34 and {len(point.runs) for point in report.problems[0].points} == {2}


def test_labels_hold_what_varies_and_nothing_else(tmp_path):
    """Not the nodes' own names for plain keys, nor what differs because the quantizer does."""
    made_sweep(tmp_path, seeds=1)
    labels = {point.method: set(point.keys) for point in problem_of(tmp_path).points}
    assert list(problem_of(tmp_path).methods) == ["diffq", "lsq", "ptq", "qat", "none"]  # float32 last
    assert labels == {"diffq": {"penalty"}, "qat": {"bits"}, "lsq": {"bits"}, "ptq": {"bits"}, "none": set()}


# ---- other headlines --------------------------------------------------------------------------------------------


def test_marks_where_lower_is_better(tmp_path):
    made_run(tmp_path, [*TEXT, "quantizer=none"], bits_per_byte=2.30, mb=1.0)
    for bits, score, mb in ((2, 2.60, 0.06), (3, 2.39, 0.1), (4, 2.34, 0.14), (8, 2.31, 0.26), (9, 2.45, 0.3)):
        made_run(tmp_path, [*TEXT, "quantizer=qat", f"bits={bits}"], bits_per_byte=score, mb=mb)
    problem = problem_of(tmp_path, sizes=[0.05, 0.1, 0.2])
    qat = problem.methods["qat"]
    assert {distance: point.keys["bits"] for distance, point in qat.within.items()} == {0.05: 4, 0.1: 3}
    assert {mb: point and point.keys["bits"] for mb, point in qat.at.items()} == {0.05: None, 0.1: 3, 0.2: 4}
    assert [point.keys["bits"] for point in qat.front] == [2, 3, 4, 8]
    assert (problem.headline, problem.float32.score) == (BITS_PER_BYTE, 2.30)
    assert [point.method for point in problem.front] == ["qat"] * 4 + ["none"]


def test_hypervolume_where_lower_is_better_is_below_chance(tmp_path):
    made_run(tmp_path, [*TEXT, "quantizer=qat"], bits_per_byte=2.5, mb=1.067 / 4)
    assert problem_of(tmp_path).hypervolume == pytest.approx((8.0 - 2.5) * 2)


def test_of_several_float32_configurations_the_lowest_is_the_mark_where_lower_is_better(tmp_path):
    made_run(tmp_path, [*TEXT, "quantizer=none", "lr=1"], bits_per_byte=5.0)
    made_run(tmp_path, [*TEXT, "quantizer=none", "lr=0.01"], bits_per_byte=2.3)
    assert problem_of(tmp_path).float32.score == 2.3


def test_without_a_chance_level_there_is_no_hypervolume(tmp_path):
    headline = {**BITS_PER_BYTE.to_json(), "chance": None}
    made_run(tmp_path, [*TEXT, "quantizer=qat"], headline=headline)
    report = report_of(tmp_path)
    assert report.left_out == [] and report.problems[0].hypervolume is None


def test_runs_of_another_headline_are_another_problem(tmp_path):
    for task, more in (("classification", {}), ("language_modelling", {"headline": BITS_PER_BYTE.to_json()})):
        for penalty in (1, 3):
            made_run(tmp_path, ["dataset=d", "model=m", f"task={task}", f"penalty={penalty}"], **more)
    problems = report_of(tmp_path).problems
    assert [problem.title for problem in problems] == ["d, m, accuracy", "d, m, bits per byte"]
    assert [len(problem.points) for problem in problems] == [2, 2]


def test_an_old_run_and_a_new_one_are_a_point(tmp_path):
    """Old records have no headline."""
    made_run(tmp_path, ["penalty=3", "seed=0"])
    made_run(tmp_path, ["penalty=3", "seed=1"], headline=Headline(chance=0.1).to_json())
    (point,) = problem_of(tmp_path).points
    assert [run.record.headline is None for run in point.runs] == [True, False]
