"""Run folders that commit b1fce12 left are read, measured, found again and started from, as if they were today's.

They stand in outputs/ as they were written: the digits with the network of mine_net.py by five methods, in three
epochs, and a run that failed. Modules, keys and records may change; these folders may not.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.run_configs import listening

from diffq_exp import evaluate, load_model, report, storage, train

HERE = Path(__file__).parent
FINISHED = {  # folder: test accuracy, bytes of the file
    "digits-Net-diffq-e748892e6c": (0.8447412353923205, 2654),
    "digits-Net-lsq-5fa69510ff": (0.8013355592654424, 1536),
    "digits-Net-none-0fced5c923": (0.8514190317195326, 6495),
    "digits-Net-ptq-84caaad4a4": (0.8297161936560935, 1746),
    "digits-Net-qat-06216eb10c": (0.8330550918196995, 1544),
    "digits-Net-qat-cb53d59b14": (0.7963272120200334, 1616),
}
FAILED = "digits-Net-diffq-5fd7fff2ef"


@pytest.fixture(autouse=True)
def earlier(tmp_path, monkeypatch):
    """A copy of the folders, in the folder that the test works in; the network can be imported."""
    shutil.copytree(HERE / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(HERE))
    return tmp_path / "outputs"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def overrides_of(folder):
    return json.loads((folder / "result.json").read_text())["overrides"]


def test_the_report_has_every_finished_run_with_its_numbers(capsys):
    assert report.main(["--out", "report", "--no-wandb"]) == 0
    with open("report/runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    said = {Path(row["folder"]).name: row for row in rows if row["status"] == "finished"}
    assert said.keys() == FINISHED.keys()
    for name, (accuracy, size) in FINISHED.items():
        assert float(said[name]["test.accuracy"]) == accuracy
        assert float(said[name]["size_mb.file"]) == size / 2**20
    assert FAILED in capsys.readouterr().out


@pytest.mark.parametrize("name", FINISHED)
def test_a_stored_network_has_the_accuracy_that_was_recorded(name, earlier, capsys):
    accuracy, size = FINISHED[name]
    assert (earlier / name / "model.safetensors").stat().st_size == size
    assert evaluate.main([str(earlier / name), "--device", "cpu", "--allow", "mine_net.Net"]) == 0
    said = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
    assert float(said["test.accuracy"]) == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("name", FINISHED)
def test_a_stored_network_is_loaded_entry_by_entry(name, earlier):
    model = load_model(earlier / name, allow=["mine_net.Net"])
    values = storage.read(earlier / name / "model.safetensors")[0].values()
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", FINISHED)
def test_the_same_command_finds_the_finished_run_and_does_nothing(name, earlier):
    before = contents(earlier)
    with listening() as lines:
        assert train.main([*overrides_of(earlier / name), "tracking=none"]) == 0
    assert f"outputs/{name} is finished already" in "\n".join(lines)
    assert contents(earlier) == before


def test_the_same_command_does_the_failed_run_again(earlier):
    overrides = [override for override in overrides_of(earlier / FAILED) if override != "+tracking.x=1"]
    with listening():
        assert train.main([*overrides, "tracking=none"]) == 0
    assert json.loads((earlier / FAILED / "result.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("source", ["digits-Net-none-0fced5c923", "digits-Net-qat-06216eb10c/model.safetensors"])
def test_a_run_starts_from_it(source, earlier):
    """A rate of almost nothing keeps the accuracy that the source had in float32."""
    own = ["quantizer=none", f"init_from=outputs/{source}", "lr=1e-12", "epochs=1", "tracking=none"]
    base = [text for text in overrides_of(earlier / "digits-Net-none-0fced5c923") if "=none" not in text]
    with listening():
        assert train.main([text for text in base if text.split("=")[0] not in ("lr", "epochs")] + own) == 0
    (result,) = [json.loads(path.read_text()) for path in earlier.glob("*/result.json")
                 if path.parent.name not in (*FINISHED, FAILED)]  # fmt: skip
    assert result["status"] == "finished"
    assert result["test"]["accuracy"] == pytest.approx(FINISHED[source.split("/")[0]][0], abs=0.05)
