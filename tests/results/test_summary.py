"""The comparison of runs: problems, the float32 line, the marks of each method."""

import statistics

import pytest
from helpers.made_runs import BITS_PER_BYTE, TEXT, made_run, made_sweep

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of


def report_of(outputs, **how):
    return make_report(find_runs([outputs]), **how)


def problem_of(outputs, **how):
    (problem,) = report_of(outputs, **how).problems
    return problem


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


def test_runs_whose_data_changed_in_between_are_told(tmp_path):
    data = {"name": "digits", "classes": 10, "train": 10, "test": 5}
    digests = (
        {"train": "a", "test": "b"},
        {"train": "a", "test": "c"},
        {"train": "a", "test": "b", "file_times": "t"},
    )
    for seed, digest in enumerate(digests):
        made_run(tmp_path, [f"seed={seed}"], data={**data, "digest": digest})
    made_run(tmp_path, ["seed=7"], data=data)  # of an older version
    (told,) = make_report(find_runs([tmp_path])).warnings
    assert told.endswith(": between them the data have changed") and told.count("digits-digits_cnn") == 2
    made_run(tmp_path, ["seed=1"], data={**data, "digest": digests[0]})
    assert make_report(find_runs([tmp_path])).warnings == []
    made_run(tmp_path, ["seed=9", "dataset.crop=3"], data={**data, "digest": digests[1]})
    assert make_report(find_runs([tmp_path])).warnings == []
