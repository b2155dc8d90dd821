"""Records: no reader ever sees half a file, JSON that any parser takes, lines that a kill cut short."""

import json
import math

import pytest

from diffq_exp.common import files
from diffq_exp.common.files import read_json, replacing, write_json
from diffq_exp.results.metrics import append_row, read_rows, write_rows

ROWS = [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25, "val": {"accuracy": 0.5}}, {"epoch": 3}]


def only_file(folder, name: str) -> bytes:
    """The content of `name`, beside which nothing else lies in the folder."""
    assert [path.name for path in folder.iterdir()] == [name]
    return (folder / name).read_bytes()


# ---- whole files ----------------------------------------------------------------------------------------------


def test_nothing_shows_before_the_end(tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"half")
        file.flush()
        assert path.read_bytes() == b"old"
    assert only_file(tmp_path, "result.json") == b"half"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_midway_leaves_the_old_file_and_no_debris(tmp_path, fault):
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with pytest.raises(fault), replacing(path) as file:
        file.write(b"half")
        raise fault
    assert only_file(tmp_path, "result.json") == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_no_debris(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"a": 2})
    assert only_file(tmp_path, "result.json") == before


def test_a_first_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"a": object()})
    assert list(tmp_path.iterdir()) == []


# ---- JSON -----------------------------------------------------------------------------------------------------


def strict(text: str):
    """Parse as the standard has it: no NaN, no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_written_is_read(tmp_path):
    values = {"status": "finished", "test": {"accuracy": 0.98}, "seed": 0, "bits": [1, 2.5], "no": None, "é": "ü"}
    write_json(tmp_path / "result.json", values)
    assert read_json(tmp_path / "result.json") == values


def test_numbers_that_are_not_finite_become_null(tmp_path):
    values = {"loss": math.nan, "test": {"loss": math.inf, "all": [1.0, -math.inf, (math.nan, True)]}, "ok": 1e308}
    expected = {"loss": None, "test": {"loss": None, "all": [1.0, None, [None, True]]}, "ok": 1e308}
    write_json(tmp_path / "result.json", values)
    assert strict((tmp_path / "result.json").read_text()) == expected
    append_row(tmp_path / "metrics.jsonl", values)
    assert strict((tmp_path / "metrics.jsonl").read_text()) == expected


def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert read_json(tmp_path / "result.json") == {}
    assert read_rows(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"[1]", b"3", b"null", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_json(path)


# ---- rows -----------------------------------------------------------------------------------------------------


def test_rows_are_appended(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for count, row in enumerate(ROWS, 1):
        append_row(path, row)
        assert read_rows(path) == ROWS[:count]
    assert path.read_text().count("\n") == len(ROWS)


def test_rows_are_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, ROWS)
    write_rows(path, read_rows(path)[:1])
    append_row(path, ROWS[2])
    assert read_rows(path) == [ROWS[0], ROWS[2]]
    assert only_file(tmp_path, "metrics.jsonl").count(b"\n") == 2


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path):
    """Wherever the cut is, what is read are the first rows, and all that stand whole."""
    path = tmp_path / "metrics.jsonl"
    write_rows(path, ROWS)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        rows = read_rows(path)
        assert rows == ROWS[: len(rows)]
        assert len(rows) >= whole[:cut].count(b"\n")


@pytest.mark.parametrize("tail", [b"\x00" * 20, b'{"epoch": 9\xff', b"}{"])
def test_a_last_line_of_something_else_is_left_out(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write_rows(path, ROWS)
    with open(path, "ab") as file:
        file.write(tail)
    assert read_rows(path) == ROWS
