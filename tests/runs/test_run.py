"""A run in its folder: the same command again, how it ends, and what surrounds it."""

import json
import logging
import os
import random
import signal

import pytest
from helpers.run_configs import TINY, ask, do
from helpers.run_folders import content, never, payloads
from helpers.run_signals import interrupt_at
from PIL import Image

from diffq_exp import storage
from diffq_exp.results.run_files import is_locked
from diffq_exp.runs.run_folder import RunFolder
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("same_commit")


# ---- the same command again ----------------------------------------------------------------------------------


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


# ---- statuses ------------------------------------------------------------------------------------------------


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


def test_failed_is_done_again_when_the_error_is_mended(images, tmp_path):
    bad = images / "train" / "dog" / "3.png"
    good = bad.read_bytes()
    bad.write_bytes(b"no image")
    assert image_run(images, tmp_path).code == 2
    bad.write_bytes(good)
    outcome = image_run(images, tmp_path)
    assert outcome.code == 0 and outcome.result["status"] == "finished" and "reason" not in outcome.result


def test_an_error_of_the_program_is_a_failed_run_too(tmp_path, monkeypatch):
    def error(self, outputs, targets):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(Classification, "loss", error)
    outcome = do(*TINY, root=tmp_path)
    assert outcome.code == 1 and outcome.result["status"] == "failed"
    assert outcome.result["reason"].startswith("RuntimeError: two lines (where: see ") and len(outcome.lines) == 2
    assert "Traceback" in (outcome.folder / "train.log").read_text()
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("override", ["tracking.timeout_seconds=-1", "tracking._target_=nowhere.Tracker"])
def test_an_error_before_the_data_is_a_failed_run_too(override, tmp_path):
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


# ---- what surrounds it ---------------------------------------------------------------------------------------


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
