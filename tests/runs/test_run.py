"""Whole runs: what they leave, how they end, and what the same command does a second time."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.run_configs import TINY, ask, do, rows_of, timeless
from omegaconf import OmegaConf
from PIL import Image
from safetensors import deserialize

from diffq_exp import evaluate as evaluation
from diffq_exp import load_model, storage
from diffq_exp.results.commit import git_state
from diffq_exp.results.run_files import is_locked
from diffq_exp.runs import machine
from diffq_exp.runs.run_folder import RunFolder
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.trainer import Trainer

COMMIT = "0123456789" * 4


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def payloads(folder: Path) -> dict[str, bytes]:
    """What a stored model holds, bit by bit."""
    return {name: bytes(entry["data"]) for name, entry in deserialize((folder / "model.safetensors").read_bytes())}


def never(*args, **kwargs):
    raise AssertionError("nothing is to be done")


@pytest.fixture(scope="module", autouse=True)
def same_commit():
    """The checkout may get a commit while these tests run; and asking git takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "git_state", lambda: (COMMIT, False))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the default quantizer; to be looked at, not changed."""
    return do(*TINY, root=tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """A run of the float32 network."""
    return do(*TINY, "quantizer=none", root=tmp_path_factory.mktemp("floats"))


# ---- what a run leaves --------------------------------------------------------------------------------------


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


# ---- every quantizer ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["gaussian", "uniform"])
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


# ---- from other runs ----------------------------------------------------------------------------------------


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


def test_a_source_of_another_network_is_told_in_one_line(tmp_path, floats):
    outcome = do(*TINY, "quantizer=qat", "dataset.num_classes=3", f"init_from={floats.folder}", root=tmp_path)
    assert outcome.code == 2 and outcome.result["status"] == "failed"
    assert str(floats.folder) in outcome.result["reason"] and "\n" not in outcome.lines[-1]


# ---- the same command again ---------------------------------------------------------------------------------


def test_finished_is_told_again_and_nothing_is_done(finished, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", never)
    before = content(finished.folder)
    again = do(*TINY, root=finished.folder.parent.parent)
    assert again.code == 0 and again.folder == finished.folder
    assert content(finished.folder) == before
    assert "finished" in again.text and "restart=true" in again.text
    assert f"{finished.result['test']['accuracy']:.4f}" in again.text
    assert "commit" not in again.text


def test_finished_by_another_commit_is_said(tmp_path):
    outcome = do(*TINY, "epochs=1", root=tmp_path)
    result = {**outcome.result, "git_commit": "fedcba9876" * 4}
    (outcome.folder / "result.json").write_text(json.dumps(result))
    again = do(*TINY, "epochs=1", root=tmp_path)
    assert again.code == 0 and "commit fedcba98" in again.text


def test_restart_does_it_again(tmp_path):
    outcome = do(*TINY, root=tmp_path)
    before, weights, rows = outcome.result, payloads(outcome.folder), timeless(outcome.rows)
    (outcome.folder / "left.txt").write_text("of the run before")
    result = {**before, "test": {"accuracy": 7}}
    (outcome.folder / "result.json").write_text(json.dumps(result))
    again = do(*TINY, "restart=true", root=tmp_path)
    assert again.folder == outcome.folder and (again.folder / "left.txt").exists()
    assert not (again.folder / ".earlier").exists()
    assert again.result["test"] == before["test"]
    assert payloads(again.folder) == weights
    assert timeless(again.rows) == rows and len(again.rows) == 2


def test_a_restart_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    outcome = do(*TINY, root=tmp_path)
    model = (outcome.folder / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "loss", lambda *_: 1 / 0)
        assert do(*TINY, "restart=true", root=tmp_path).code == 1
    assert (outcome.folder / ".earlier" / "model.safetensors").read_bytes() == model


def test_a_finished_run_whose_model_is_gone_stores_it_again(tmp_path):
    outcome = do(*TINY, root=tmp_path)
    model = (outcome.folder / "model.safetensors").read_bytes()
    (outcome.folder / "model.safetensors").unlink()
    again = do(*TINY, root=tmp_path)
    assert again.code == 0 and (again.folder / "model.safetensors").read_bytes() == model


def test_machine_and_tracking_are_no_other_run(finished):
    for override in ("num_workers=0", "checkpoint_minutes=1", "tracking=wandb", "bits=3"):
        assert ask(*TINY, override).folder.name == finished.folder.name, override
    for override in ("penalty=2", "dataset.crop=1", "precision=bf16"):
        assert ask(*TINY, override).folder.name != finished.folder.name, override


def test_the_folder_of_another_run_is_refused(tmp_path):
    mine = (*TINY, "epochs=1", f"hydra.run.dir={tmp_path}/mine")
    outcome = do(*mine, root=tmp_path)
    assert outcome.folder == tmp_path / "mine" and outcome.code == 0
    before = content(outcome.folder)
    for more in ("seed=3", "quantizer=qat"):
        other = do(*mine, more, "restart=true", root=tmp_path)
        assert other.code == 2 and str(outcome.folder) in other.text
        assert content(outcome.folder) == before
    assert not is_locked(outcome.folder)


def test_one_at_a_time(tmp_path, monkeypatch):
    asked = ask(*TINY, root=tmp_path)
    from diffq_exp.command.signature import signature

    monkeypatch.setattr(Trainer, "fit", never)
    with RunFolder(asked.folder, signature(asked.cfg)):
        before = content(asked.folder)
        for more in ((), ("restart=true",)):
            outcome = do(*TINY, *more, root=tmp_path)
            assert outcome.code == 2 and str(asked.folder) in outcome.text and "another process" in outcome.text
        assert content(asked.folder) == before == {}


# ---- statuses -----------------------------------------------------------------------------------------------


def test_running_while_it_trains_and_locked(tmp_path, monkeypatch):
    seen = []
    fit = Trainer.fit

    def fitted(self, stop):
        result = json.loads((self.folder / "result.json").read_text())
        seen.append((result["status"], is_locked(self.folder), bool(result["signature"]), "test" in result))
        fit(self, stop)

    monkeypatch.setattr(Trainer, "fit", fitted)
    outcome = do(*TINY, "epochs=1", root=tmp_path)
    assert seen == [("running", True, True, False)] and outcome.result["status"] == "finished"
    assert not is_locked(outcome.folder)


def test_diverged_is_told_and_told_again(tmp_path):
    ways = (*TINY, "optimizer=sgd", "lr=1e30", "batch_size=8")
    outcome = do(*ways, root=tmp_path)
    result = outcome.result
    assert outcome.code == 1 and result["status"] == "diverged"
    assert result["epoch"] == 1 and 2 <= result["step"] <= 6 and type(result["step"]) is int
    assert f"epoch 1, step {result['step']}" in outcome.lines[-1]
    assert "test" not in result and not (outcome.folder / "model.safetensors").exists()
    before = content(outcome.folder)
    again = do(*ways, root=tmp_path)
    assert again.code == 1 and "diverged" in again.text and "restart=true" in again.text
    assert f"step {result['step']}" in again.text and content(outcome.folder) == before


def test_nothing_left_to_quantize_is_told_in_one_line(tmp_path):
    outcome = do(*TINY, "min_size=1000", root=tmp_path)
    result = outcome.result
    assert outcome.code == 2 and result["status"] == "failed"
    assert "min_size=1000" in result["reason"] and "conv5.weight" in result["reason"]
    assert f"{4 * 128 * 128 * 9 / 2**20:.4g} MB" in result["reason"]
    assert len(outcome.lines) == 1 and result["reason"] in outcome.lines[0]
    assert "Traceback" in (outcome.folder / "train.log").read_text()


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    draws = random.Random(0)
    for part, count in (("train", 8), ("test", 4)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for index in range(count):
                image = Image.new("L", (8, 8), 40 if label == "cat" else 200)
                image.putpixel((index, 3), draws.randrange(256))
                image.save(root / part / label / f"{index}.png")
    return root


FOLDER = ("dataset=image_folder", "dataset.channels=1", "dataset.cache_dir=null", "dataset.crop=0")


def image_run(images, root):
    rest = [word for word in TINY if not word.startswith("dataset")]
    return do(*rest, *FOLDER, f"dataset.root={images}", root=root)


def test_a_folder_of_images(images, tmp_path):
    outcome = image_run(images, tmp_path)
    assert outcome.code == 0 and outcome.folder.name.startswith("image_folder-digits_cnn-diffq-")


def test_a_corrupt_image_is_named_in_one_line(images, tmp_path):
    bad = images / "train" / "dog" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    outcome = image_run(images, tmp_path)
    assert outcome.code == 2 and outcome.result["status"] == "failed"
    assert str(bad) in outcome.result["reason"] and len(outcome.lines) == 1


def test_failed_is_done_again_when_the_fault_is_mended(images, tmp_path):
    bad = images / "train" / "dog" / "3.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    assert image_run(images, tmp_path).code == 2
    bad.write_bytes(good)
    outcome = image_run(images, tmp_path)
    assert outcome.code == 0 and outcome.result["status"] == "finished" and "reason" not in outcome.result


def test_a_fault_of_the_program_is_a_failed_run_too(tmp_path, monkeypatch):
    def fault(self, outputs, targets):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(Classification, "loss", fault)
    outcome = do(*TINY, root=tmp_path)
    assert outcome.code == 1 and outcome.result["status"] == "failed"
    assert outcome.result["reason"].startswith("RuntimeError: two lines (where: see ") and len(outcome.lines) == 2
    assert "Traceback" in (outcome.folder / "train.log").read_text()
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("override", ["tracking.timeout_seconds=-1", "tracking._target_=nowhere.Tracker"])
def test_a_fault_before_the_data_is_a_failed_run_too(override, tmp_path):
    words = [word for word in TINY if word != "tracking=none"]
    outcome = do(*words, "tracking=wandb", override, root=tmp_path)
    assert outcome.code == 2 and outcome.result["status"] == "failed" and len(outcome.lines) == 1


def test_a_corrupt_checkpoint_is_named(tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 4, signal.SIGTERM)
    outcome = do(*TINY, root=tmp_path)
    path = outcome.folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    again = do(*TINY, root=tmp_path)
    assert again.code == 2 and again.result["status"] == "failed" and str(path) in again.result["reason"]


# ---- interrupted --------------------------------------------------------------------------------------------


def interrupt_at(monkeypatch, batch, number, times=1):
    """Send this process a signal during one of the training batches, counted from now on."""
    plain, left = Classification.loss, [batch]

    def loss(self, outputs, targets):
        left[0] -= outputs.requires_grad
        if left[0] == 0 and outputs.requires_grad:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return plain(self, outputs, targets)

    monkeypatch.setattr(Classification, "loss", loss)


@pytest.mark.parametrize(
    ("batch", "number", "code"), [(2, signal.SIGTERM, 143), (3, signal.SIGTERM, 143), (5, signal.SIGINT, 130)]
)
def test_interrupted_is_gone_on_with(batch, number, code, finished, tmp_path, monkeypatch):
    """3 batches an epoch: within the first, at its end, within the second."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, batch, number)
        outcome = do(*TINY, root=tmp_path)
    first = outcome.result
    assert (outcome.code, first["status"]) == (code, "interrupted")
    assert "the same command goes on" in outcome.lines[-1]
    assert len(outcome.rows) == batch // 3 and "test" not in first
    again = do(*TINY, root=tmp_path)
    assert again.code == 0 and again.folder == outcome.folder
    assert timeless(again.rows) == timeless(finished.rows)
    assert payloads(again.folder) == payloads(finished.folder)
    own = {"seconds": 0, "run_id": "", "ended": ""}
    assert {**again.result, **own} == {**finished.result, **own}
    assert again.result["run_id"] == first["run_id"] != finished.result["run_id"]
    assert again.result["seconds"] > first["seconds"] > 0  # of both together


def test_a_second_ctrl_c_ends_it_at_once(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGINT, times=2)
        outcome = do(*TINY, root=tmp_path)
    assert (outcome.code, outcome.result["status"]) == (130, "interrupted")
    again = do(*TINY, root=tmp_path)
    assert again.code == 0
    assert payloads(again.folder) == payloads(finished.folder)


def test_ptq_interrupted_in_its_float32_run(tmp_path, monkeypatch, floats):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2, signal.SIGTERM)
        outcome = do(*TINY, "quantizer=ptq", root=tmp_path)
    assert outcome.code == 143 and not outcome.folder.exists()
    again = do(*TINY, "quantizer=ptq", root=tmp_path)
    assert again.code == 0
    source = again.folder.parent / floats.folder.name
    assert payloads(source) == payloads(floats.folder)


# ---- killed -------------------------------------------------------------------------------------------------

# 45 steps, each followed by a checkpoint
LONG = (*TINY, "dataset.train_images=320", "dataset.test_images=32", "epochs=3", "optimizer=sgd", "clip=5")


@pytest.mark.timeout(600)
def test_killed_three_times_and_ended_once_it_ends_as_one_that_was_not(tmp_path):
    reference = do(*LONG, root=tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    tests = Path(__file__).parents[1]
    plan = [f"{number}:{random.randint(1, 7)}" for number in (9, 9, 15, 9)]  # signal, after how many checkpoints
    command = [
        sys.executable,
        str(tests / "helpers" / "run_kills.py"),
        *plan,
        "--",
        *LONG,
        "checkpoint_minutes=1e-9",
    ]
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    done = subprocess.run(command, cwd=tmp_path / "cut", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    said = (tmp_path / "cut" / "said.txt").read_text()
    assert [line["code"] for line in lines] == [-9, -9, 143, -9, 0], (plan, said, done.stderr)
    assert [line["status"] for line in lines] == ["running", "running", "interrupted", "running", "finished"]
    assert not any(line["locked"] for line in lines)
    folder = tmp_path / "cut" / reference.folder.relative_to(tmp_path / "whole")
    assert payloads(folder) == payloads(reference.folder), plan
    assert timeless(rows_of(folder)) == timeless(reference.rows), plan
    result = json.loads((folder / "result.json").read_text())
    for key in ("status", "signature", "test", "val", "size_mb", "bits", "epochs", "seed"):
        assert result[key] == reference.result[key], key
    assert f"{result['test']['accuracy']:.4f}" in said and "the same command goes on" in said


# ---- a user's own -------------------------------------------------------------------------------------------

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


def test_a_target_that_is_none_is_told_in_one_line(tmp_path):
    outcome = do(*TINY, "model._target_=helpers.run_pieces.Nothing", root=tmp_path)
    assert (
        outcome.code == 2 and "helpers.run_pieces.Nothing" in outcome.result["reason"] and len(outcome.lines) == 1
    )


# ---- what surrounds it --------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_another_seed_others(finished, tmp_path):
    same, other = do(*TINY, root=tmp_path), do(*TINY, "seed=1", root=tmp_path)
    weights = [payloads(run.folder) for run in (finished, same, other)]
    assert weights[0] == weights[1] != weights[2]
    assert other.result["seed"] == 1 and other.folder != same.folder


def test_the_same_network_is_the_same_file(finished, tmp_path):
    """Byte by byte: `init_from=<file>` names a run after the hash of the file."""
    stored, config = storage.read(finished.folder / "model.safetensors")
    files = set()
    for number in range(8):
        storage.save(stored, tmp_path / f"{number}", config)
        files.add((tmp_path / f"{number}").read_bytes())
    assert len(files) == 1


def test_a_run_leaves_the_process_as_it_was(tmp_path):
    log = logging.getLogger("diffq_exp")
    before = signal.getsignal(signal.SIGTERM), list(log.handlers), os.getcwd()
    do(*TINY, "epochs=1", root=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), list(log.handlers), os.getcwd()) == before
