"""metrics.jsonl: rows are added, cut back, and read up to a line that a kill cut short."""

import json
import math

import pytest

from diffq_exp.results.metrics import append_row, read_rows, write_rows

ROWS = [{"epoch": 1, "loss": 2.5}, {"epoch": 2, "loss": 1.25, "val": {"accuracy": 0.5}}, {"epoch": 3}]


def test_a_file_that_does_not_exist_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_numbers_that_are_not_finite_become_null(tmp_path):
    append_row(tmp_path / "metrics.jsonl", {"loss": math.nan, "all": [1.0, -math.inf]})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"loss": None, "all": [1.0, None]}


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
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"] and path.read_bytes().count(b"\n") == 2


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
