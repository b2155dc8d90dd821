"""Networks, data, optimizers, quantizers and tasks of the user's own."""

import pytest
import torch
from helpers.run_configs import TINY, do
from omegaconf import OmegaConf

from diffq_exp import evaluate as evaluation
from diffq_exp import load_model, storage

pytestmark = pytest.mark.usefixtures("same_commit")


OWN = {
    "model": {"_target_": "helpers.run_pieces.OwnNet", "slope": 0.1},
    "dataset": {"_target_": "helpers.run_pieces.own_data", "images": 30},
    "optimizer": {"_target_": "helpers.run_pieces.OwnOptimizer", "_partial_": True, "lr": "${lr}"},
    "quantizer": {"_target_": "helpers.run_pieces.OwnQuantizer", "least": 0.0005},
    "task": {"_target_": "helpers.run_pieces.OwnTask", "margin": 0.5},
}


@pytest.fixture
def own_conf(tmp_path):
    for group, node in OWN.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(node), tmp_path / "conf" / group / "own.yaml")
    return f"hydra.searchpath=[file://{tmp_path}/conf]"


PLAIN = ("epochs=3", "batch_size=10", "lr=0.002", "device=cpu", "tracking=none")


def test_a_users_own_of_everything(own_conf, tmp_path, capsys):
    words = [own_conf, *PLAIN, *(f"{group}=own" for group in OWN)]
    outcome = do(*words, root=tmp_path)
    result = outcome.result
    assert outcome.code == 0 and outcome.folder.name.startswith("own-own-own-")
    assert {"accuracy", "loss", "class_0"} <= set(result["test"]) and "class_0" in outcome.rows[0]["train"]
    assert result["bits"]["mean"] == pytest.approx(1.6) and list(result["bits"]["layers"]) == ["head.weight"]
    stored, _ = storage.read(outcome.folder / "model.safetensors")
    assert stored.method == "ternary" and int(stored.tensors["head.weight"].levels.max()) == 2
    assert evaluation.main([str(outcome.folder)]) == 2
    assert "--allow" in capsys.readouterr().err
    allowed = [OWN[group]["_target_"] for group in ("model", "dataset", "task")]
    words = [word for target in allowed for word in ("--allow", target)]
    code = evaluation.main([str(outcome.folder), *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    numbers = dict(line.split()[:2] for line in said.out.splitlines())
    assert float(numbers["test.accuracy"]) == pytest.approx(result["test"]["accuracy"], abs=1e-6)
    assert float(numbers["test.class_0"]) == pytest.approx(result["test"]["class_0"], abs=1e-6)
    assert isinstance(load_model(outcome.folder, allow=allowed), torch.nn.Module)


@pytest.mark.parametrize("group", OWN)
def test_a_users_own_of_one_thing(group, own_conf, tmp_path):
    words = [word for word in TINY if group != "dataset" or not word.startswith(("dataset", "val"))]
    outcome = do(own_conf, *words, f"{group}=own", "min_size=0.0005", root=tmp_path)
    assert outcome.code == 0 and outcome.result["status"] == "finished"


def test_a_target_typed_on_the_command_line(tmp_path):
    words = ("model._target_=helpers.run_pieces.OwnNet", "+model.slope=0.2")
    outcome = do(*TINY, *words, "min_size=0.0005", root=tmp_path)
    assert outcome.code == 0 and list(outcome.result["bits"]["layers"]) == ["head.weight"]
    assert "; OwnNet: DiffQuantizer" in outcome.lines[0] and outcome.result["choices"]["model"] == "OwnNet"


def test_keys_of_the_file_that_a_typed_target_does_not_take(tmp_path, capsys):
    """They are left out and said; what is typed stays."""
    words = ("task._target_=helpers.run_pieces.Focal", "scheduler._target_=helpers.run_pieces.Halves")
    outcome = do(*TINY, "scheduler=cosine", "epochs=1", "dataset.train_images=20", *words, root=tmp_path)
    assert outcome.code == 0, outcome.lines
    assert "helpers.run_pieces.Focal does not take label_smoothing of task=classification" in outcome.lines
    assert "helpers.run_pieces.Halves does not take warmup_epochs, final, bits of scheduler=cosine" in outcome.lines
    assert evaluation.main([str(outcome.folder), "--device", "cpu", "--allow", "helpers.run_pieces.Focal"]) == 0
    wrong = do(*TINY, words[0], "task.label_smoothing=0.1", root=tmp_path)
    assert wrong.code == 2 and "label_smoothing" in wrong.result["reason"]


def test_a_target_that_is_none_is_told_in_one_line(tmp_path):
    outcome = do(*TINY, "model._target_=helpers.run_pieces.Nothing", root=tmp_path)
    assert (
        outcome.code == 2 and "helpers.run_pieces.Nothing" in outcome.result["reason"] and len(outcome.lines) == 1
    )
