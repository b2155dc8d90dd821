"""Runs that start from other runs: post-training quantization and fine-tuning."""

import argparse
import json
import shutil

import pytest
import torch
from helpers.run_configs import TINY, ask, do
from helpers.run_folders import content, never
from safetensors.torch import save_file

from diffq_exp import load_model
from diffq_exp.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("same_commit")


def test_ptq_trains_the_float32_network_first_in_a_folder_beside(tmp_path, floats):
    outcome = do(*TINY, "quantizer=ptq", "bits=4", root=tmp_path)
    beside = {path.name for path in outcome.folder.parent.iterdir()}
    assert outcome.code == 0 and beside == {outcome.folder.name, floats.folder.name}
    result, source = (
        outcome.result,
        json.loads((tmp_path / "outputs" / floats.folder.name / "result.json").read_text()),
    )
    assert (result["status"], source["status"]) == ("finished", "finished")
    assert result["epochs"] == 0 and outcome.rows == [] and source["epochs"] == 2
    assert result["bits"]["mean"] == 4 and result["size_mb"]["file"] < 0.2
    assert result["test"]["float32_accuracy"] == source["test"]["accuracy"]
    assert "-ptq-" in outcome.folder.name and "-none-" in floats.folder.name


def test_ptq_takes_a_finished_float32_run(tmp_path, monkeypatch):
    source = do(*TINY, "quantizer=none", root=tmp_path)
    before = content(source.folder)
    monkeypatch.setattr(Trainer, "_step", never)
    outcomes = [do(*TINY, "quantizer=ptq", f"bits={bits}", root=tmp_path) for bits in (4, 8)]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert outcomes[0].folder != outcomes[1].folder
    assert content(source.folder) == before
    assert outcomes[0].result["size_mb"]["file"] < outcomes[1].result["size_mb"]["file"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_ptq_of_a_run_given_does_no_training(kind, tmp_path, floats, monkeypatch):
    monkeypatch.setattr(Trainer, "_step", never)
    source = floats.folder if kind == "folder" else floats.folder / "model.safetensors"
    outcome = do(*TINY, "quantizer=ptq", "bits=8", f"init_from={source}", root=tmp_path)
    assert outcome.code == 0 and outcome.rows == [] and outcome.result["epochs"] == 0
    assert [path.name for path in outcome.folder.parent.iterdir()] == [outcome.folder.name]
    weights = load_model(floats.folder).state_dict()
    for name, value in load_model(outcome.folder).state_dict().items():
        spread = float(weights[name].max() - weights[name].min())
        assert torch.allclose(value.float(), weights[name].float(), atol=spread / 255), name


def test_ptq_keys_of_training_do_not_name_it_when_a_run_is_given(floats):
    one = ask(*TINY, "quantizer=ptq", f"init_from={floats.folder}")
    other = ask(*TINY, "quantizer=ptq", f"init_from={floats.folder}", "epochs=7", "lr=0.5")
    assert one.folder == other.folder


@pytest.mark.parametrize(("quantizer", "kind"), [("qat", "file"), ("lsq", "folder"), ("diffq", "folder")])
def test_fine_tuning_starts_from_the_weights_of_a_run(quantizer, kind, tmp_path, floats):
    """With a rate of almost nothing the weights are still those of the source."""
    source = floats.folder if kind == "folder" else floats.folder / "model.safetensors"
    outcome = do(
        *TINY, f"quantizer={quantizer}", "bits=8", f"init_from={source}", "lr=1e-12", "epochs=1", root=tmp_path
    )
    assert outcome.code == 0 and len(outcome.rows) == 1
    trained = torch.load(outcome.folder / "checkpoint.pt", weights_only=True)["model"]
    for name, value in torch.load(floats.folder / "checkpoint.pt", weights_only=True)["model"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(trained[name], value, atol=1e-7), name


def test_a_source_in_the_home_folder(tmp_path, floats, monkeypatch):
    """The check of the command line takes ~, so the run has to."""
    monkeypatch.setenv("HOME", str(floats.folder.parent))
    outcome = do(*TINY, "quantizer=ptq", f"init_from='~/{floats.folder.name}'", root=tmp_path)
    assert outcome.code == 0


def test_a_head_of_other_classes_is_drawn_anew_or_refused(tmp_path, floats):
    words = (*TINY, "quantizer=qat", "dataset.num_classes=3", f"init_from={floats.folder}", "epochs=1")
    strict = do(*words, "init_strict=true", root=tmp_path)
    assert strict.code == 2 and strict.result["status"] == "failed" and "\n" not in strict.lines[-1]
    assert str(floats.folder) in strict.result["reason"] and "has shape (4, " in strict.result["reason"]
    again = do(*words, root=tmp_path)
    assert again.code == 0 and again.folder != strict.folder  # so that neither is taken for the other
    assert "has shape (4, " in again.text and "tensors are taken from it" in again.text


def test_a_network_that_is_not_trained_on_has_to_fit_in_full(tmp_path, floats):
    lacking = dict([*load_model(floats.folder).state_dict().items()][:-1])
    torch.save(lacking, tmp_path / "net.pth")
    outcome = do(*TINY, "quantizer=ptq", f"init_from={tmp_path / 'net.pth'}", root=tmp_path)
    assert outcome.code == 2 and "it lacks" in outcome.result["reason"]


def checkpoint_of_a_module(path, state):
    """What Lightning writes for a module whose network is `self.net`, with hyperparameters of a class."""
    hyperparameters = {"lr": 0.1, "config": argparse.Namespace(width=3)}
    state = {f"net.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": state, "hyper_parameters": hyperparameters}, path)
    return path


def test_a_checkpoint_of_somebody_else(tmp_path, floats):
    state = load_model(floats.folder).state_dict()
    source = checkpoint_of_a_module(tmp_path / "last.ckpt", state)
    outcome = do(*TINY, "quantizer=ptq", "bits=8", f"init_from={source}", root=tmp_path)
    own = do(*TINY, "quantizer=ptq", "bits=8", f"init_from={floats.folder}", root=tmp_path)
    assert outcome.code == own.code == 0
    assert outcome.result["test"] == own.result["test"]
    assert "'net.' left out of their names" in outcome.text and "out of its 'state_dict'" in outcome.text


def test_a_signature_follows_the_content_of_foreign_files(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    states = {"a.safetensors": {"x": torch.ones(2)}, "b.safetensors": {"y": torch.zeros(2)}}
    for name, state in states.items():
        save_file(state, folder / name)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    words = (*TINY, "quantizer=qat")
    first = ask(*words, f"init_from={folder}").folder
    assert ask(*words, "init_strict=true").folder == ask(*words).folder
    shutil.copytree(folder, tmp_path / "copy")
    assert ask(*words, f"init_from={tmp_path / 'copy'}").folder == first
    assert ask(*words, f"init_from={folder / 'model.safetensors.index.json'}").folder == first
    save_file({"y": torch.ones(2)}, folder / "b.safetensors")
    assert ask(*words, f"init_from={folder}").folder != first
