"""Digests of examples: what changes them, and what does not."""

import os
import shutil

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from diffq_exp.data import digest as digests
from diffq_exp.data import from_datasets, from_tensors, text
from diffq_exp.data.digest import FILE_TIMES, changed, of_folders, of_tensors

HOW = {"device": "cpu", "batch_size": 4, "seed": 0}


def tensors(**changes):
    images, targets = torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
    how = {"train": (images, targets), "test": (images[:2], targets[:2]), "classes": ["a", "b"], "name": "made"}
    return from_tensors(**{**how, **HOW, **changes}).digest


def test_every_byte_of_tensors_counts():
    images, targets = torch.arange(64, dtype=torch.uint8).reshape(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])
    before = tensors()
    assert set(before) == {"train", "test"} and all(len(value) == 16 for value in before.values())
    other = images.clone()
    other[3, 0, 3, 3] += 1
    assert changed(before, tensors(train=(other, targets))) == ["train"]
    assert changed(before, tensors(train=(images, targets.flip(0)))) == ["train"]
    assert changed(before, tensors(test=(images[:1], targets[:1]))) == ["test"]
    assert changed(before, tensors(classes=["a", "c"])) == ["train", "test"]
    assert changed({}, before) == []


def test_how_examples_are_drawn_does_not_count():
    assert tensors() == tensors(seed=3, val_fraction=0.5, batch_size=2, crop=1, flip=True, mean=[0.1], std=[0.1])


def test_shape_and_type_of_a_tensor_count_and_its_memory_does_not():
    rows = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    assert of_tensors(rows) != of_tensors(rows.reshape(4, 3)) and of_tensors(rows) != of_tensors(rows.float())
    assert of_tensors(rows) == of_tensors(rows.t().contiguous().t()) and of_tensors(rows[:0]) != of_tensors(rows)


def test_text_counts_by_its_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("some words, again and again" * 20)
    before = text(path=str(tmp_path), length=4, **HOW).digest
    os.utime(tmp_path / "a.txt", (1, 1))
    assert text(path=str(tmp_path), length=8, device="cpu", batch_size=2, seed=5).digest == before
    (tmp_path / "a.txt").write_text("some words, again and again" * 19 + "some words, again and AGAIN")
    assert changed(before, text(path=str(tmp_path), length=4, **HOW).digest) == ["val"]


@pytest.fixture
def root(tmp_path):
    for part in ("train", "test"):
        for at, name in enumerate("ab"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (40 * at + number, 0, 0)).save(
                    tmp_path / f"set/{part}/{name}/{number}.png"
                )
    return tmp_path / "set"


def streamed(root):
    parts = {part: ImageFolder(str(root / part)) for part in ("train", "test")}
    return from_datasets(**parts, classes=["a", "b"], name="made", image_size=8, **HOW).digest


def test_of_streamed_files_names_and_sizes_count(root):
    before = streamed(root)
    assert set(before) == {"train", "test", FILE_TIMES} and streamed(root) == before
    (root / "train/a/0.png").rename(root / "train/a/9.png")
    assert changed(before, streamed(root)) == ["train"]
    (root / "train/a/9.png").rename(root / "train/a/0.png")
    assert streamed(root) == before
    (root / "test/b/0.png").write_bytes((root / "test/b/0.png").read_bytes() + b"\0")
    assert changed(before, streamed(root)) == ["test"]


def test_contents_of_a_sample_count(root, monkeypatch):
    before = streamed(root)
    file = root / "train/a/0.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert changed(before, streamed(root)) == ["train"]
    monkeypatch.setattr(digests, "SAMPLE", 2)  # of six files the first and the fourth
    before = streamed(root)
    (root / "train/a/1.png").write_bytes(bytes(len((root / "train/a/1.png").read_bytes())))
    assert changed(before, streamed(root)) == []


def test_a_copied_folder_has_other_times_only(root, tmp_path):
    before = streamed(root)
    copied = shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    os.utime(copied / "train/a/0.png", (1, 1))
    now = streamed(copied)
    assert changed(before, now) == [] and now[FILE_TIMES] != before[FILE_TIMES]


def test_many_files_are_looked_at_in_their_order(root, monkeypatch):
    before = streamed(root)
    monkeypatch.setattr(digests, "_CHUNK", 1)
    assert streamed(root) == before


def test_other_map_style_sets_have_none():
    assert of_folders({"train": [(torch.zeros(3, 8, 8), 0)]}) == {}
