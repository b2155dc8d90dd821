"""The content of the page: the points, marks and runs of the report, as plain data."""

import json
from pathlib import Path

import pytest
from helpers.made_runs import LAYERS, TEXT, made_run, made_sweep

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.page_data import page_data
from diffq_exp.results.summary import Report, make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of
from diffq_exp.results.tables import problem_tables


def report_of(outputs: Path) -> Report:
    return make_report(find_runs([outputs]))


def sweep_report(outputs: Path) -> Report:
    sweep = read_sweep(outputs, made_sweep(outputs).stem)
    return make_report(runs_of(sweep, find_runs([outputs])), sweep, by=sweep.by)


def test_points_and_marks_are_those_of_the_report(tmp_path):
    report = sweep_report(tmp_path)
    data, problem = page_data(report), report.problems[0]
    shown = data["problems"][0]
    for point, made in zip(shown["points"], problem.points, strict=True):
        assert (point["method"], point["score"], point["size"]) == (made.method, made.score, made.size)
        assert [data["runs"][at]["command"] for at in point["runs"]] == [run.command for run in made.runs]
        assert point["overall"] == (made in problem.front)
        assert point["front"] == (made in problem.methods[made.method].front)
    for method in shown["methods"]:
        summary = problem.methods[method["name"]]
        assert (method["points"], method["hypervolume"]) == (len(summary.points), summary.hypervolume)
        for name, marks in (("within", summary.within), ("at", summary.at)):
            assert [None if at is None else problem.points[at] for at in method[name]] == [*marks.values()]
    assert shown["within"] == [0.5, 1.0]
    assert data["styles"]["diffq"]["label"] == "DiffQ"


def test_the_page_is_told_how_to_write_a_score(tmp_path):
    made_run(tmp_path / "a", [*TEXT, "quantizer=qat"], bits_per_byte=2.5)
    made_run(tmp_path / "b", ["quantizer=qat"])
    data = page_data(report_of(tmp_path))
    accuracy, bits = (problem["headline"] for problem in data["problems"])
    assert (accuracy["percent"], accuracy["sign"], accuracy["factor"], accuracy["chance"]) == (True, 1, 100, 0.1)
    assert (bits["percent"], bits["sign"], bits["factor"], bits["chance"]) == (False, -1, 1, 8.0)
    assert (bits["label"], bits["worse"], bits["float32_name"]) == (
        "bits per byte",
        "above",
        "float32_bits_per_byte",
    )
    assert data["problems"][1]["points"][0]["score"] == 2.5 and data["problems"][1]["within"] == [0.05, 0.1]
    assert all(len(run["curves"]["train_score"]) == 3 for run in data["runs"])


def test_the_head_counts_every_run(tmp_path):
    data = page_data(sweep_report(tmp_path))
    assert data["counts"] == [("finished", 51), ("failed", 1), ("diverged", 1), ("missing", 2)]
    assert data["total"] == 55
    assert data["command"] == "python -m diffq_exp.train -m experiment=pareto_digits"
    diverged = next(run for run in data["unfinished"] if run["status"] == "diverged")
    assert (diverged["epoch"], diverged["step"], diverged["command"]) == (1, 3, "python -m diffq_exp.train lr=1e30")


def test_the_averaged_keys_are_left_out_of_a_points_overrides(tmp_path):
    for seed in (0, 1):
        made_run(tmp_path, ["penalty=3", f"seed={seed}"])
    data = page_data(report_of(tmp_path))
    assert data["problems"][0]["points"][0]["overrides"] == ["penalty=3"]
    assert [run["label"] for run in data["runs"]] == ["seed 0", "seed 1"]


def test_first_is_the_smallest_near_float32_else_the_most_accurate(tmp_path):
    made_run(tmp_path, ["quantizer=none"], accuracy=0.99, mb=1.0)
    for penalty, accuracy, mb in ((1, 0.995, 0.3), (2, 0.986, 0.2), (3, 0.95, 0.1)):
        made_run(tmp_path, [f"penalty={penalty}"], accuracy=accuracy, mb=mb)
    with_float32 = page_data(report_of(tmp_path))["problems"][0]
    assert with_float32["points"][with_float32["first"]]["settings"] == "penalty=2"
    only = [run for run in find_runs([tmp_path]) if run.choices["quantizer"] == "diffq"]
    without = page_data(make_report(only))["problems"][0]
    assert without["points"][without["first"]]["settings"] == "penalty=1"
    assert without["float32"] is None


def test_what_runs_share_is_stored_once(tmp_path):
    for penalty in (1, 2, 3):
        made_run(tmp_path, [f"penalty={penalty}"])
    data = page_data(report_of(tmp_path))
    assert data["layers"] == [list(LAYERS)]
    assert data["hardware"] == ["A Processor @ 2.50GHz, 1 thread"]
    assert [run["layers"] for run in data["runs"]] == [0, 0, 0]


def test_rows_of_zeros_stand_beside_the_bits_of_their_layers(tmp_path):
    folder = made_run(tmp_path)
    record = json.loads((folder / "result.json").read_text())
    record["bits"]["zero_rows"] = {LAYERS[1]: [3, 8]}
    (folder / "result.json").write_text(json.dumps(record))
    (run,) = page_data(report_of(tmp_path))["runs"]
    assert run["zero_rows"] == [None, [3, 8], *[None] * (len(LAYERS) - 2)]


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps(dict.fromkeys(LAYERS, "much"))])
def test_the_worth_of_layers_stands_beside_their_bits_where_it_is_known(text, tmp_path):
    file = made_run(tmp_path) / "sensitivity.json"
    assert page_data(report_of(tmp_path))["runs"][0]["sensitivity"] is None
    file.write_text(json.dumps({LAYERS[1]: 0.25, LAYERS[0]: None, "no layer": 1.0}))
    (run,) = page_data(report_of(tmp_path))["runs"]
    assert run["sensitivity"] == [None, 0.25, *[None] * (len(LAYERS) - 2)]
    file.write_text(text)
    assert page_data(report_of(tmp_path))["runs"][0]["sensitivity"] is None


def test_a_run_without_epochs_bits_or_commit(tmp_path):
    folder = made_run(tmp_path, ["quantizer=none"], git_commit=None, hardware=None, val=None)
    (folder / "metrics.jsonl").unlink()
    run = page_data(report_of(tmp_path))["runs"][0]
    assert (run["curves"], run["bits"], run["commit"], run["val"]) == ({}, None, None, "")


@pytest.mark.parametrize("accuracy", [0.9699499, 0.96995, 0.96625, 0.96875, 0.999949])
@pytest.mark.parametrize("mb", [0.04705, 0.099951, 99.96, 0.00012345])
def test_the_page_has_the_digits_of_the_tables(tmp_path, accuracy, mb):
    """Both halves of a rounding are in one place."""
    made_run(tmp_path, ["quantizer=qat"], accuracy=accuracy, mb=mb)
    report = report_of(tmp_path)
    (point,) = page_data(report)["problems"][0]["points"]
    _, _, score, size, _ = problem_tables(report.problems[0], "file")[1].rows[0]
    assert (point["text"], point["mb"]) == (f"{score} %", size)
    (run,) = page_data(report)["runs"]
    assert (run["test"], run["mb"]["file"]) == (f"{score} %", size)
