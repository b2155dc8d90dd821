"""Data that change under a run: before it goes on, after it has finished, under a network that it begins from."""

import json
import shutil
import signal

import numpy as np
import pytest
from helpers.run_configs import do
from helpers.run_folders import content
from helpers.run_signals import interrupt_at
from PIL import Image

pytestmark = pytest.mark.usefixtures("same_commit")

IMAGES = (
    "dataset=image_folder", "dataset.channels=1", "dataset.cache_dir=null", "dataset.crop=0", "val_fraction=0.25",
    "batch_size=8", "epochs=2", "device=cpu", "threads=1", "tracking=none", "storage.coding=packed",
    "quantizer=qat", "num_workers=0",
)  # fmt: skip
STREAMED = ("dataset.max_memory_mb=0", "dataset.image_size=8")


def write(folder, numbers, level):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng([number, level]).integers(level, level + 100, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def root(tmp_path):
    """8 images of each of 2 classes to train on, 4 to test on."""
    for name, level in (("dark", 0), ("light", 120)):
        write(tmp_path / "set" / "train" / name, range(8), level)
        write(tmp_path / "set" / "test" / name, range(8, 12), level)
    return tmp_path / "set"


@pytest.fixture
def run(root, tmp_path):
    return lambda *words: do(*IMAGES, f"dataset.root={root}", *words, root=tmp_path)


@pytest.mark.parametrize("words", [(), STREAMED], ids=["in memory", "streamed"])
def test_a_stopped_run_does_not_go_on_with_other_images(words, root, run, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3, signal.SIGINT)
        stopped = run(*words)
    assert stopped.result["status"] == "interrupted" and set(stopped.result["data"]["digest"]) >= {"train", "test"}
    checkpoint = (stopped.folder / "checkpoint.pt").read_bytes()
    moved = shutil.move(root / "train/dark/3.png", root.parent / "3.png")
    for _ in range(2):  # what was refused does not become the data of the run
        refused = run(*words)
        assert refused.code == 2 and refused.result["status"] == "failed"
        assert "the data have changed since the run began: train (12 examples, now 11)" in refused.lines[-1]
    assert (stopped.folder / "checkpoint.pt").read_bytes() == checkpoint
    shutil.move(moved, root / "train/dark/3.png")
    assert run(*words).result["status"] == "finished"


def test_newer_files_of_the_same_size_are_told(root, run, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3, signal.SIGINT)
        run(*STREAMED)
    for file in root.rglob("*.png"):
        file.touch()
    again = run(*STREAMED)
    assert again.code == 0 and "files of the data have other times than when the run began" in again.text


def test_a_finished_run_says_that_its_data_have_changed(root, run):
    first = run()
    assert first.code == 0
    before = content(first.folder)
    assert "changed" not in run().text
    write(root / "test" / "dark", [20], 0)
    again = run()
    told = "its data have changed since: test (8 examples, now 9); restart=true does it again with those of now"
    assert again.code == 0 and told in again.lines and content(first.folder) == before
    (root / "train" / "dark" / "0.png").write_bytes(b"no image")
    unread = run()
    assert unread.code == 0 and any(line.startswith("its data cannot be read now: ") for line in unread.lines)
    write(root / "train" / "dark", [0], 0)
    restarted = run("restart=true")
    assert restarted.code == 0 and restarted.result["data"]["test"] == 9
    assert "changed" not in run().text


def test_a_record_without_a_digest_agrees_with_any_data(root, run):
    first = run()
    path = first.folder / "result.json"
    record = json.loads(path.read_text())
    del record["data"]["digest"]
    path.write_text(json.dumps(record))
    write(root / "test" / "dark", [20], 0)
    assert run().code == 0 and "changed" not in run().text


def test_a_float32_network_of_earlier_data_is_told(root, run):
    assert run("quantizer=ptq").code == 0
    write(root / "train" / "dark", [20], 0)
    later = run("quantizer=ptq", "bits=3")
    assert later.code == 0
    assert any(line.endswith("the data have changed since this network was trained: train") for line in later.lines)
