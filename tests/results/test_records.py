"""The record of a run: what is written is read, old records too, and a wrong entry is named."""

import json

import pytest
from filelock import FileLock
from helpers.made_runs import BITS_PER_BYTE, TEXT, made_run

from diffq_exp.results.headline import Headline
from diffq_exp.results.records import RunRecord, read_record, status_of, write_record


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = RunRecord(
        status="finished",
        signature="aaaa",
        seed=0,
        overrides=["bits=3"],
        config={"bits": 3},
        git_dirty=False,
        headline=BITS_PER_BYTE,
        test={"bits_per_byte": 2.5},
        seconds=0.0,
    )
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    written = json.loads((tmp_path / "result.json").read_text())
    assert set(written) == {
        "status", "signature", "seed", "overrides", "config", "git_dirty", "headline", "test", "seconds"
    }  # fmt: skip


def test_without_a_file_the_record_is_empty(tmp_path):
    assert read_record(tmp_path) == RunRecord() and status_of(tmp_path) == ""


@pytest.mark.parametrize("overrides", [("penalty=3",), TEXT], ids=["old, accuracy", "bits per byte"])
def test_a_made_run_is_read_whole(tmp_path, overrides):
    folder = made_run(tmp_path, overrides)
    written = json.loads((folder / "result.json").read_text())
    assert read_record(folder).to_json() == written


def test_the_headline_of_an_old_record_is_accuracy_among_its_classes(tmp_path):
    record = read_record(made_run(tmp_path, accuracy=0.9))
    assert record.headline is None and record.compared_by == Headline(chance=0.1) and record.score == 0.9


def test_the_headline_of_a_record_is_its_own(tmp_path):
    record = read_record(made_run(tmp_path, TEXT, bits_per_byte=2.5))
    assert record.compared_by == BITS_PER_BYTE and record.score == 2.5


WRONG = {
    "status": 3, "signature": 3, "choices": "x", "overrides": "bits=3", "config": [], "git_commit": 5, "device": {},
    "versions": [], "hardware": "", "data": 1, "test": [], "val": 3, "size_mb": "x", "bits": "abc", "seconds": "x",
    "epoch": "1", "step": [], "reason": 3, "run_id": 3, "headline": [],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_of_a_wrong_kind_is_named(tmp_path, name):
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", name: WRONG[name]}))
    with pytest.raises(ValueError, match=rf"result\.json: {name} is "):
        read_record(tmp_path)


def test_null_and_unknown_entries_are_left_out():
    assert RunRecord.from_json({"bits": None, "seconds": None, "of a later version": 3}) == RunRecord()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "0.5", None])
def test_a_number_is_finite(value):
    assert RunRecord(test={"accuracy": value}).number("test", "accuracy") is None


def test_running_without_a_process_was_killed(tmp_path):
    record = RunRecord(status="running")
    write_record(tmp_path, record)
    assert status_of(tmp_path) == status_of(tmp_path, record) == "killed"
    with FileLock(tmp_path / ".lock"):
        assert status_of(tmp_path) == "running"
