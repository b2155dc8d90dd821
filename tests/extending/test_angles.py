"""The task and data of angles.py, copied to a folder of their own, by the real commands."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import warm

from diffq_exp import evaluate

HERE = Path(__file__).parent
FILES = ("angles.py", "task/angle.yaml", "dataset/angles.yaml")
WORDS = (
    "--config-dir",
    ".",
    "dataset=angles",
    "task=angle",
    "penalty=0.01",
    "epochs=3",
    "device=cpu",
    "tracking=none",
)


def trained(root):
    """Train in a user's folder, outside the package; -> the lines of the command."""
    done = warm.run(["-m", "diffq_exp.train", *WORDS], root)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and what it said."""
    root = tmp_path_factory.mktemp("angles")
    for name in FILES:
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(HERE / name, root / name)
    said = trained(root)
    (folder,) = (root / "outputs").glob("angles-digits_cnn-diffq-*")
    return folder, said


def test_the_record_has_its_headline_and_scores(run):
    folder, _ = run
    record = json.loads((folder / "result.json").read_text())
    assert record["status"] == "finished" and record["choices"]["task"] == "angle"
    headline = record["headline"]
    assert (headline["name"], headline["unit"], headline["higher_is_better"]) == ("rmse", "degrees", False)
    assert record["data"] == {
        "name": "angles", "noise": 0.1, "unit": "pictures", "train": 1000, "val": 250, "test": 250,
    }  # fmt: skip
    assert set(record["test"]) == {"loss", "within_5", "rmse", "float32_rmse"}
    assert record["test"]["rmse"] == pytest.approx(90 * record["test"]["loss"] ** 0.5, rel=1e-4)
    assert record["test"]["rmse"] < headline["chance"] / 2


def test_the_lines_of_a_run_show_it(run):
    _, said = run
    assert "1,000 train / 250 val / 250 test pictures" in said and "pictures/s" in said
    assert "accuracy" not in said and "error" in said


def test_its_file_is_measured_again(run, capsys, monkeypatch):
    folder, _ = run
    monkeypatch.chdir(folder.parents[1])
    monkeypatch.syspath_prepend(str(folder.parents[1]))
    allowed = [word for name in ("Angle", "angles") for word in ("--allow", f"angles.{name}")]
    assert evaluate.main([str(folder), *allowed, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    numbers = dict(line.split()[:2] for line in said.splitlines() if line.startswith("test."))
    record = json.loads((folder / "result.json").read_text())
    assert float(numbers["test.rmse"]) == pytest.approx(record["test"]["rmse"], rel=1e-3)
