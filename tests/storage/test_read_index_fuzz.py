"""scripts/fuzz_index.py: that every reader answers well to some lies, and that it would find one that does not."""

import importlib
import random
from functools import cache
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("fuzz_index")


@pytest.fixture
def few(fuzz, monkeypatch):
    """Few good files are quick to make."""
    files = {name: made for name, made in _digits_files(fuzz).items() if name.endswith(("lsq", "none"))}
    monkeypatch.setattr(fuzz, "good_files", lambda: files)
    return fuzz


@cache
def _digits_files(fuzz):
    return fuzz.digits_files(coding="packed")


def test_20_files(few, tmp_path, capsys):
    code = few.main(["--files", "20", "--seed", "3", "--keep", str(tmp_path / "kept")])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = {line.split()[0]: line.split()[-3:] for line in said.splitlines()[1:10]}
    assert sum(int(read) + int(refused) for read, refused, _ in rows.values()) == 2 * 20
    assert all(failed == "0" for _, _, failed in rows.values()) and not (tmp_path / "kept").exists()


@pytest.mark.long
def test_600_files_of_all_networks(fuzz, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 3 * fuzz.SECONDS)  # beside other tests
    code = fuzz.main(["--files", "600", "--seed", "4", "--keep", str(tmp_path / "kept")])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = [line.rsplit(maxsplit=3) for line in said.splitlines()[1:10]]
    assert all(int(read) > 0 and int(refused) > 0 for _, read, refused, _ in rows), said


def test_good_files_are_read_by_all(few, tmp_path):
    path = tmp_path / "model.safetensors"
    for data, make in few.good_files().values():
        path.write_bytes(data)
        for reader, read in few.readers(path, make).items():
            assert few.outcome(path, read) == ("read", ""), reader


def test_a_seed_gives_the_same_lies(few):
    data = few.good_files()["digits_cnn, none"][0]
    one, other, another = (few.lied(data, random.Random(seed)) for seed in ("0/7", "0/7", "0/8"))
    assert one == other != another


@pytest.mark.parametrize(
    ("error", "found"),
    [(KeyError("x"), "raised KeyError"), (ValueError("somewhere"), "a message without the path")],
)
def test_faults_are_found(few, monkeypatch, tmp_path, capsys, error, found):
    def read():
        raise error

    monkeypatch.setattr(few, "readers", lambda path, make: {"load": read})
    assert few.main(["--files", "3", "--seed", "5", "--keep", str(tmp_path / "kept")]) == 1
    assert len(list((tmp_path / "kept").iterdir())) == 3 and capsys.readouterr().out.count(found) >= 3


def test_time_and_memory_are_bounded(fuzz, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "SECONDS", -1)
    assert fuzz.outcome(tmp_path, lambda: None)[0].startswith("took 0")
    monkeypatch.setattr(fuzz, "SECONDS", 5)
    monkeypatch.setattr(fuzz, "MEGABYTES", -1)
    assert fuzz.outcome(tmp_path, lambda: None)[0] == "took 0 MB"
