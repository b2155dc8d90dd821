"""scripts/fuzz_storage.py: that it finds nothing in 300 files, and that it would find something."""

import importlib
import random
from pathlib import Path

import pytest
from helpers.stored_files import parts_of, put_together

from diffq_exp import storage

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("fuzz_storage")


def test_300_files(fuzz, tmp_path, capsys):
    code = fuzz.main(["--files", "300", "--keep", str(tmp_path / "kept")])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = [line.rsplit(maxsplit=3) for line in said.splitlines()[1:11]]
    assert sum(int(loaded) + int(refused) for _, loaded, refused, _ in rows) == 300
    assert all(int(refused) > 0 and failed == "0" for _, _, refused, failed in rows)
    assert "300 files, seed 0" in said and not (tmp_path / "kept").exists()


def test_a_seed_gives_the_same_files(fuzz):
    good = fuzz.good_files()["diffq 8, auto"]
    for kind in fuzz.KINDS.values():
        one, other, another = (kind(good, random.Random(seed)) for seed in ("0/7", "0/7", "0/9"))
        assert one == other != another


def test_good_files_are_loaded_and_put_together_again(fuzz, tmp_path):
    """So that what is refused is refused for its damage."""
    path = tmp_path / "model.safetensors"
    for name, data in fuzz.good_files().items():
        for file in (data, put_together(parts_of(data))):
            path.write_bytes(file)
            assert fuzz.outcome(path, fuzz.network(1)) == ("loaded", ""), name


def fault(error):
    def load(path, model):
        raise error

    return load


def changes_first(path, model):
    model.norm.running_mean += 1
    raise ValueError(f"{path}: too late")


@pytest.mark.parametrize(
    ("load", "found"),
    [
        (fault(KeyError("x")), "raised KeyError"),
        (fault(SystemExit(1)), "raised SystemExit"),
        (fault(ValueError("somewhere something")), "a message without the path"),
        (changes_first, "the network is changed"),
    ],
)
def test_faults_are_found(fuzz, monkeypatch, tmp_path, capsys, load, found):
    """Exit code 1, the file kept under its seed and number."""
    monkeypatch.setattr(storage, "load", load)
    assert fuzz.main(["--files", "3", "--seed", "5", "--keep", str(tmp_path / "kept")]) == 1
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == [
        f"fuzz-5-{number}.safetensors" for number in range(3)
    ]
    said = capsys.readouterr().out
    assert said.count(found) == 3 and "seed 5" in said


def test_time_and_memory_are_bounded(fuzz, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "SECONDS", -1)
    path = tmp_path / "model.safetensors"
    path.write_bytes(fuzz.good_files()["none, packed"])
    assert fuzz.outcome(path, fuzz.network(1))[0].startswith("took 0")
    monkeypatch.setattr(fuzz, "SECONDS", 5)
    monkeypatch.setattr(fuzz, "MEGABYTES", -1)
    assert fuzz.outcome(path, fuzz.network(1))[0] == "took 0 MB"
