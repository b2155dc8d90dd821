"""Files that are replaced whole: no reader ever sees half of one, and JSON that any parser takes."""

import json
import math

import pytest

from diffq_exp.common import files
from diffq_exp.common.files import read_json, replacing, write_json


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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_write_that_fails_midway_leaves_the_old_file_and_no_debris(tmp_path, error):
    path = tmp_path / "result.json"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
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


def test_a_file_that_is_not_there_is_empty(tmp_path):
    assert read_json(tmp_path / "result.json") == {}


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"[1]", b"3", b"null", b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_json(path)
