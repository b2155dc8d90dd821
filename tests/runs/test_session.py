"""What a run leaves when it finishes, and how its numbers come about."""

import re
from pathlib import Path

import pytest
import torch
from helpers.run_configs import TINY, do
from helpers.run_folders import COMMIT
from omegaconf import OmegaConf

from diffq_exp import evaluate as evaluation
from diffq_exp import load_model, storage
from diffq_exp.results.commit import git_state
from diffq_exp.results.run_files import is_locked
from diffq_exp.runs import machine
from diffq_exp.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("same_commit")


# ---- what a run leaves ---------------------------------------------------------------------------------------


def test_its_folder_is_named_after_what_it_is(finished):
    assert finished.code == 0
    assert finished.folder.parent.name == "outputs"
    assert re.fullmatch(r"synthetic-digits_cnn-diffq-[0-9a-f]{8,}", finished.folder.name)
    assert finished.folder.name.endswith(finished.result["signature"])


def test_contents_of_its_folder(finished):
    files = {".hydra", "metrics.jsonl", "train.log", "checkpoint.pt", "model.safetensors", "result.json", ".lock"}
    assert {path.name for path in finished.folder.iterdir()} == files
    assert not is_locked(finished.folder)


def test_its_configuration_is_left_as_hydra_does(finished):
    place = finished.folder / ".hydra"
    assert {path.name for path in place.iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    config = OmegaConf.load(place / "config.yaml")
    assert (config.epochs, config.dataset.image_size, config.quantizer.group_size) == (2, 8, config.group_size)
    assert list(OmegaConf.load(place / "overrides.yaml")) == list(TINY)
    assert "hydra" in OmegaConf.load(place / "hydra.yaml") and "hydra" not in config


def test_metrics_have_a_line_for_each_epoch(finished):
    assert [row["epoch"] for row in finished.rows] == [1, 2]
    assert all({"train", "val", "size_mb", "bits", "seconds"} <= set(row) for row in finished.rows)


def test_every_key_of_the_result_has_its_type(finished):
    result = finished.result
    types = {
        "status": str, "signature": str, "seed": int, "epochs": int, "test.accuracy": float, "test.loss": float,
        "val.accuracy": float, "size_mb.float32": float, "size_mb.true": float, "size_mb.file": float,
        "bits.mean": float, "bits.min": float, "bits.max": float, "bits.layers": dict, "seconds": float,
        "git_commit": (str, type(None)), "versions": dict, "hardware": dict,
    }  # fmt: skip
    for key, kind in types.items():
        value = result
        for part in key.split("."):
            assert part in value, key
            value = value[part]
        assert isinstance(value, kind) and not isinstance(value, bool), (key, value)


def test_values_of_the_result(finished):
    result = finished.result
    assert (result["status"], result["seed"], result["epochs"]) == ("finished", 0, 2)
    assert 0 <= result["test"]["accuracy"] <= 1 and 0 <= result["val"]["accuracy"] <= 1
    assert result["size_mb"]["file"] == (finished.folder / "model.safetensors").stat().st_size / 2**20
    weights = 32 * 9 + 64 * 32 * 9 + 64 * 64 * 9 + 128 * 64 * 9 + 128 * 128 * 9 + 128 * 4 + 4
    norms = 4 * (32 + 64 + 64 + 128 + 128) + 5
    assert result["size_mb"]["float32"] == pytest.approx(4 * (weights + norms) / 2**20)
    bits, last = result["bits"], finished.rows[-1]
    assert 2 <= bits["min"] <= bits["mean"] <= bits["max"] <= 15 and bits["layers"]
    assert result["size_mb"]["true"] == last["size_mb"]["true"] and bits == last["bits"]
    assert result["val"]["accuracy"] == last["val"]["accuracy"]
    assert result["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert 0 < result["seconds"] < 600


def test_the_hardware_tells_the_threads_that_were_used(tmp_path):
    """Sums in another order round otherwise: a result without its threads cannot be had again."""
    result = do(*TINY, "threads=2", "epochs=1", "dataset.train_images=20", root=tmp_path).result
    assert result["hardware"]["threads"] == 2


def test_the_commit_is_that_of_the_checkout(finished):
    assert finished.result["git_commit"] == COMMIT
    package = Path(machine.__file__).parents[1]
    commit, _ = git_state(package)
    if (package.parent / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}", commit)
    else:
        assert commit is None


def test_its_log_has_what_the_user_saw(finished):
    log = (finished.folder / "train.log").read_text()
    assert "epoch 1/2" in log and "epoch 2/2" in log and "model.safetensors" in log
    assert all(line in log for line in finished.lines)


def test_the_table_at_the_end(finished):
    result = finished.result
    sizes = result["size_mb"]
    rows = [line for line in finished.lines if "│" in line]
    assert any(f"{sizes['float32']:.4f}" in line for line in rows)
    stored = next(line for line in rows if "model.safetensors" in line)
    assert f"{result['test']['accuracy']:.4f}" in stored and f"{sizes['file']:.4f}" in stored
    assert f"{sizes['float32'] / sizes['file']:.1f}" in stored
    for name in result["bits"]["layers"]:
        assert any(line.split()[:1] == [name] for line in finished.lines), name
    assert str(finished.folder) in finished.text


@pytest.mark.parametrize("quantizer", ["diffq", "none"])
def test_evaluate_says_the_same_numbers_again(quantizer, finished, floats, capsys):
    run = finished if quantizer == "diffq" else floats
    for source in (run.folder, run.folder / "model.safetensors"):
        assert evaluation.main([str(source), "--device", "cpu"]) == 0
        said = dict(line.split()[:2] for line in capsys.readouterr().out.splitlines())
        assert float(said["test.accuracy"]) == pytest.approx(run.result["test"]["accuracy"], abs=1e-6)
        assert float(said["test.loss"]) == pytest.approx(run.result["test"]["loss"], rel=1e-5)
        assert float(said["size_mb.file"]) == pytest.approx(run.result["size_mb"]["file"], rel=1e-5)


def test_load_model_gives_the_network_that_was_measured(finished):
    model = load_model(finished.folder)
    stored, config = storage.read(finished.folder / "model.safetensors")
    values = stored.values()
    assert not model.training and all(torch.equal(v, values[n]) for n, v in model.state_dict().items())
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 4)
    assert config["model"]["name"] == "digits_cnn" and config["input"]["shape"] == [1, 8, 8]


def test_a_file_that_reads_back_otherwise_fails_the_run(tmp_path, monkeypatch):
    """The test accuracy is of the file: when it does not hold what memory does, there is none."""
    read = storage.read

    def spoilt(path):
        stored, config = read(path)
        next(iter(stored.tensors.values())).levels[0] ^= 1
        return stored, config

    monkeypatch.setattr(storage, "read", spoilt)
    outcome = do(*TINY, "epochs=1", root=tmp_path)
    name = outcome.rows[0]["bits"]["layers"]
    assert outcome.code == 1 and outcome.result["status"] == "failed" and "test" not in outcome.result
    assert any(repr(layer) in outcome.result["reason"] for layer in name)


def test_without_a_validation_part_the_result_has_none(tmp_path):
    outcome = do(*TINY, "val_fraction=0", "epochs=1", root=tmp_path)
    assert outcome.code == 0 and "val" not in outcome.result and "val" not in outcome.rows[0]


def test_the_test_part_is_only_measured_at_the_end(tmp_path, monkeypatch):
    seen = []
    from diffq_exp.runs import session

    measure = session.evaluate
    monkeypatch.setattr(session, "evaluate", lambda model, *rest: seen.append(1) or measure(model, *rest))
    fit = Trainer.fit

    def fitted(self, stop):
        fit(self, stop)
        assert not seen

    monkeypatch.setattr(Trainer, "fit", fitted)
    assert do(*TINY, "epochs=1", root=tmp_path).code == 0 and seen


def test_top5_from_20_classes_on(tmp_path):
    outcome = do(
        *TINY, "dataset.num_classes=20", "dataset.train_images=160", "dataset.test_images=20", "epochs=1",
        root=tmp_path,
    )  # fmt: skip
    assert "accuracy_top5" in outcome.result["test"] and "accuracy_top5" in outcome.rows[0]["val"]


# ---- every quantizer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", pytest.param("uniform", marks=pytest.mark.long)])
@pytest.mark.parametrize("param", ["bits", "noise"])
def test_the_four_pairs_of_noise_and_param(noise, param, finished, tmp_path):
    outcome = do(*TINY, f"noise={noise}", f"param={param}", "dataset.train_images=128", "epochs=4", root=tmp_path)
    assert outcome.code == 0 and outcome.result["test"]["accuracy"] >= 0.9
    assert outcome.result["size_mb"]["true"] < 0.3 * outcome.result["size_mb"]["float32"]
    assert outcome.folder.name != finished.folder.name


@pytest.mark.parametrize(("quantizer", "bits"), [("qat", 3), ("lsq", 3)])
def test_fixed_widths(quantizer, bits, tmp_path):
    outcome = do(
        *TINY, f"quantizer={quantizer}", f"bits={bits}", "dataset.train_images=160", "epochs=4", root=tmp_path
    )
    result = outcome.result
    assert outcome.code == 0 and result["test"]["accuracy"] >= 0.7
    assert result["bits"]["mean"] == result["bits"]["min"] == result["bits"]["max"] == bits
    assert result["size_mb"]["file"] < 0.2 and len(outcome.rows) == 4
    assert f"-{quantizer}-" in outcome.folder.name


def test_none_stores_the_float32_network(floats):
    result = floats.result
    assert floats.code == 0 and result["test"]["accuracy"] == result["test"]["float32_accuracy"]
    assert result["size_mb"]["float32"] <= result["size_mb"]["file"] < result["size_mb"]["float32"] + 0.01
    weights = torch.load(floats.folder / "checkpoint.pt", weights_only=True)["model"]
    stored = load_model(floats.folder).state_dict()
    assert weights.keys() == stored.keys() and all(torch.equal(weights[name], stored[name]) for name in weights)


def test_float16_stores_the_rest_in_half(finished, tmp_path):
    outcome = do(*TINY, "float16=true", root=tmp_path)
    assert outcome.code == 0 and outcome.result["size_mb"]["file"] < finished.result["size_mb"]["file"]
