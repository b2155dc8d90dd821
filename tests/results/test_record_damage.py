"""Runs whose records are damaged, beside good ones: none is lost, each bad one is named, nothing acts.

A sample; `python scripts/fuzz_records.py` does 3,000. Then, by name, each kind that was found.
"""

import json
import os

import pytest
from helpers.made_runs import made_run, made_sweep
from helpers.record_reports import faults, page_data

from diffq_exp.common.files import write_json
from diffq_exp.report import main
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.metrics import read_rows
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import compared_by, read_sweep


def test_a_report_beside_damaged_records(tmp_path):
    """The time is that of a busy machine."""
    assert faults(tmp_path, range(60), usual=8.0).found == []


def changed(folder, **entries):
    result = json.loads((folder / "result.json").read_text())
    for name, value in entries.items():
        group, _, key = name.partition("__")
        if key:
            result[group][key] = value
        else:
            result[group] = value
    (folder / "result.json").write_text(json.dumps(result))


def one_bad(outputs, **entries):
    good, bad = made_run(outputs, ["bits=2"]), made_run(outputs, ["bits=3"])
    changed(bad, **entries)
    report = make_report(find_runs([outputs]))
    assert [run.folder for run in report.runs] == [good]
    (line,) = report.left_out
    assert str(bad) in line and "\n" not in line and len(line) < 500
    return line


@pytest.mark.parametrize("choice", ["model", "quantizer", "dataset", "scheduler"])
@pytest.mark.parametrize("value", [["a"], {"a": 1}, None, 3])
def test_a_choice_that_is_no_name(tmp_path, choice, value):
    assert f"choices.{choice} is {value!r}" in one_bad(tmp_path, **{f"choices__{choice}": value})


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("bits__layers", {"conv": "3"}),
        ("bits__layers", {"conv": None}),
        ("bits__layers", {"conv": [3]}),
        ("bits__zero_rows", {"conv": 3}),
        ("bits__zero_rows", {"conv": [1, 2, 3]}),
        ("headline", {"tolerances": list(range(100))}),
        ("headline", {"tolerances": [0]}),
        ("headline", {"label": "x" * 1000}),
        ("seconds", 10**400),
        ("seconds", float("nan")),
        ("epoch", True),
        ("test__accuracy", 1e300),
        ("size_mb__file", 1e300),
        ("size_mb__file", 5e-324),
        ("size_mb__float32", 10**400),
    ],
)
def test_an_entry_of_another_kind_is_named(tmp_path, entry, value):
    assert entry.replace("__", ".").replace("test.", "test ") in one_bad(tmp_path, **{entry: value})


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("text", [nested(100), nested(100_000), '{"config": ' + nested(50) + "}", "1" * 10_000])
def test_values_that_recursion_cannot_walk(tmp_path, text):
    good, bad = made_run(tmp_path, ["bits=2"]), made_run(tmp_path, ["bits=3"])
    (bad / "result.json").write_text(text)
    report = make_report(find_runs([tmp_path]))
    assert [run.folder for run in report.runs] == [good] and "result.json: " in report.left_out[0]


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "sensitivity.json"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(tmp_path, name, make):
    """Reading a pipe would wait for ever."""
    folder = made_run(tmp_path)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    report = make_report(find_runs([tmp_path]))
    if name == "result.json":
        assert "no regular file" in report.left_out[0]
    else:
        assert (len(report.runs) == 1 and read_rows(folder / "metrics.jsonl") == []) or name != "metrics.jsonl"


def test_rows_of_other_types_are_no_curves(tmp_path):
    outputs = tmp_path / "outputs"
    folder = made_run(outputs)
    rows = [{"epoch": "1", "train": {"loss": [1]}, "val": {"loss": 0.5}}, {"epoch": True, "val": {"loss": "x"}}, 7]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(outputs), "--out", str(tmp_path)]) == 0
    (run,) = page_data(tmp_path)["runs"]
    assert run["curves"] == {"epoch": [1, 2], "val_loss": [0.5, None]}


def test_a_damaged_copy_of_a_run_does_not_hide_it(tmp_path):
    good = made_run(tmp_path / "a", ["bits=2"])
    copy = made_run(tmp_path / "b", ["bits=2"])
    changed(copy, test={})
    os.utime(copy / "result.json", (2e9, 2e9))  # the newer
    assert [run.folder for run in make_report(find_runs([tmp_path])).runs] == [good]


def test_two_damaged_signatures_that_are_equal_hide_none(tmp_path):
    for bits in (2, 3):
        changed(made_run(tmp_path, [f"bits={bits}"]), signature="none")
    assert len(find_runs([tmp_path])) == 2


def test_a_record_cannot_turn_the_others_around(tmp_path):
    """A headline with another direction is another problem, not that of all runs."""
    for bits in (2, 3, 4):
        made_run(tmp_path, ["quantizer=qat", f"bits={bits}"])
    bad = made_run(tmp_path, ["quantizer=qat", "bits=5"])
    changed(bad, headline={"name": "accuracy", "label": "accuracy", "higher_is_better": False, "chance": 0.1})
    problems = make_report(find_runs([tmp_path])).problems
    assert sorted((len(each.points), each.headline.higher_is_better) for each in problems) == [
        (1, False),
        (3, True),
    ]


@pytest.mark.parametrize("jobs", [3, [3], [{"folder": 3}], [{"folder": "a", "choices": []}], None])
def test_a_damaged_record_of_a_sweep(tmp_path, jobs):
    folder = made_run(tmp_path)
    record = tmp_path / ".sweeps" / "mine.json"
    record.parent.mkdir()
    write_json(record, {"name": "mine", "command": "x", "jobs": jobs})
    with pytest.raises(ValueError, match=r"mine\.json: not the record of a sweep"):
        read_sweep(tmp_path, "mine")
    assert compared_by([tmp_path], find_runs([tmp_path])) == ("quantizer",) and folder.is_dir()


@pytest.mark.parametrize("by", [3, [3], {"a": 1}])
def test_a_sweep_whose_methods_are_no_keys(tmp_path, by):
    record = made_sweep(tmp_path, seeds=1)
    record.write_text(json.dumps({**json.loads(record.read_text()), "by": by, "name": 3}))
    with pytest.raises(ValueError, match="not the record of a sweep"):
        read_sweep(tmp_path, record.stem)
