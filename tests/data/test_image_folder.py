"""Folders of class folders: parts, classes, sizes, the cache of decoded images, and how faults are told."""

import logging
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from diffq_exp.data import StreamLoader, TensorLoader, image_folder, imagenet
from diffq_exp.data import decode as decoding


def write(file, seed=0, size=(6, 8), mode="RGB"):
    """A PNG of `size` (height, width) at `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (*size, 3) if mode == "RGB" else size
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(file)


@pytest.fixture
def root(tmp_path):
    """train: 6 images of each of 2 classes, test: 2 of each."""
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                write(tmp_path / "set" / part / name / f"{index}.png", seed=100 * count + 10 * label + index)
    return tmp_path / "set"


def load(root, **changes):
    how = {
        "image_size": None, "channels": 3, "mean": None, "std": None, "max_memory_mb": 100, "crop": 0,
        "flip": False, "cache_dir": str(root.parent / "cache"), "min_scale": 0.5, "device": "cpu",
        "batch_size": 4, "seed": 0, "val_fraction": 0.0,
    }  # fmt: skip
    return image_folder(root=str(root), **{**how, **changes})


def pixels(loader):
    return torch.cat([x for x, _ in loader.epoch(0)])


def as_read(files, mean, std):
    images = torch.stack([torch.from_numpy(np.asarray(Image.open(file)).copy()) for file in files])
    return (images.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def test_pixels_classes_and_order_are_those_of_the_files(root):
    data = load(root)
    assert data.classes == ["cat", "dog"] and data.shape == (3, 6, 8) and data.val is None
    assert isinstance(data.train, TensorLoader) and (data.train.examples, data.test.examples) == (12, 4)
    files = sorted((root / "test").rglob("*.png"))
    torch.testing.assert_close(pixels(data.test), as_read(files, data.mean, data.std))
    assert torch.cat([y for _, y in data.test.epoch(0)]).tolist() == [0, 0, 1, 1]


def test_a_val_folder_takes_the_place_of_the_split(root):
    assert load(root, val_fraction=0.5).val.examples == 6
    for name in ("cat", "dog"):
        write(root / "val" / name / "0.png")
    data = load(root, val_fraction=0.5)
    assert (data.train.examples, data.val.examples) == (12, 2)


def test_given_statistics_are_used(root):
    data = load(root, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    assert data.mean == (0.1, 0.2, 0.3) and data.std == (0.4, 0.5, 0.6)


def test_grey_images_keep_one_channel(root):
    write(root / "train" / "cat" / "0.png", mode="L")
    assert load(root, channels=1).shape == (1, 6, 8)


def test_a_set_above_the_limit_is_streamed_and_shows_the_same_classes(root):
    data = load(root, image_size=8, max_memory_mb=0, val_fraction=0.5)
    assert isinstance(data.train, StreamLoader) and isinstance(data.val, StreamLoader)
    assert data.shape == (3, 8, 8) and data.mean == (0.485, 0.456, 0.406)
    assert torch.cat([y for _, y in data.test.epoch(0)]).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"above dataset\.max_memory_mb=0; to stream it, set dataset\.image_size"):
        load(root, max_memory_mb=0)


def test_imagenet_tests_on_its_val_folder(root):
    os.rename(root / "test", root / "val")
    how = {"device": "cpu", "batch_size": 4, "seed": 0, "val_fraction": 0.5, "flip": True}
    data = imagenet(root=str(root), image_size=16, min_scale=0.08, **how)
    assert (data.train.examples, data.val.examples, data.test.examples) == (6, 6, 4)
    assert data.shape == (3, 16, 16) and next(data.train.epoch(0))[0].shape == (4, 3, 16, 16)


def no_decoding(*_):
    raise AssertionError("decoded again")


def test_the_second_load_reads_the_cache(root, monkeypatch):
    first = load(root)
    monkeypatch.setattr(decoding, "decode_all", no_decoding)
    second = load(root)
    assert pixels(second.test).equal(pixels(first.test)) and second.mean == first.mean
    moved = root.parent / "moved"
    shutil.copytree(root, moved)
    assert pixels(load(moved).test).equal(pixels(first.test))


@pytest.mark.parametrize("change", ["content", "name", "size", "channels"])
def test_the_cache_is_keyed_by_content_and_size(root, monkeypatch, change):
    load(root)
    if change == "content":  # of the same length, at the same time: only the bytes tell
        file = root / "train" / "dog" / "5.png"
        times = file.stat().st_mtime_ns
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, ns=(times, times))
    if change == "name":
        os.rename(root / "train" / "cat" / "0.png", root / "train" / "cat" / "9.png")
    monkeypatch.setattr(decoding, "decode_all", no_decoding)
    with pytest.raises(AssertionError, match="decoded again"):
        load(root, **{"size": {"image_size": 4}, "channels": {"channels": 1}}.get(change, {}))


def cut(content):
    return content[: len(content) // 2]


def flip_a_bit(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda _: b"", lambda _: b"nonsense" * 9])
def test_a_damaged_cache_file_is_noticed_and_made_again(root, caplog, damage):
    whole = pixels(load(root).test)
    stored = sorted((root.parent / "cache").glob("*.safetensors"))
    assert len(stored) == 2
    contents = [file.read_bytes() for file in stored]
    for file, content in zip(stored, contents, strict=True):
        file.unlink()  # a new file: the old one is still mapped
        file.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        assert pixels(load(root).test).equal(whole)
    assert caplog.text.count("is damaged") >= 2
    assert [file.read_bytes() for file in stored] == contents
    assert not [file for file in (root.parent / "cache").iterdir() if file.suffix not in (".safetensors", ".lock")]


def make_and_report(root, decodes, results):
    """Load the set with a decoding that takes a while and is told to `decodes`."""
    decode = decoding.decode_all
    decoding.decode_all = lambda *given: (decodes.put(1), time.sleep(0.5), decode(*given))[2]
    results.put(pixels(load(root).test).sum().item())


def test_two_processes_at_once_make_the_cache_once(root):
    context = multiprocessing.get_context("fork")
    decodes, results = context.Queue(), context.Queue()
    workers = [context.Process(target=make_and_report, args=(root, decodes, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    sums = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sums[0] == sums[1] == pixels(load(root).test).sum().item()
    assert [decodes.get(timeout=5) for _ in ("train", "test")] == [1, 1] and decodes.empty()
    assert len(list((root.parent / "cache").glob("*.safetensors"))) == 2


def test_no_cache_leaves_no_file(root):
    load(root, cache_dir=None)
    assert not (root.parent / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named(root):
    (root.parent / "file").write_text("")
    with pytest.raises(ValueError, match=r"dataset\.cache_dir=.*file cannot be written .*; name another, or null"):
        load(root, cache_dir=str(root.parent / "file"))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_a_corrupt_image_is_named(root, content, streamed):
    file = root / "train" / "dog" / "3.png"
    file.write_bytes(file.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"cannot read the image .*train/dog/3\.png: .*") as caught:
        data = load(root, image_size=8, max_memory_mb=0 if streamed else 100)
        list(data.train.epoch(0))
    assert "\n" not in str(caught.value)


def test_more_than_8_bits_are_refused_rather_than_clipped(root):
    Image.fromarray(np.full((6, 8), 4000, np.uint16)).save(root / "train" / "dog" / "3.png")
    with pytest.raises(ValueError, match=r"3\.png: mode I;16 has more than 8 bits"):
        load(root)


def test_mixed_sizes_need_an_image_size(root):
    write(root / "test" / "dog" / "1.png", size=(9, 8))
    with pytest.raises(
        ValueError, match=r"test/dog/1\.png has 9x8 pixels, the first image 6x8; set dataset\.image"
    ):
        load(root)
    assert load(root, image_size=5).shape == (3, 5, 5)
    with pytest.raises(ValueError, match=r"dataset\.image_size=0 is not at least 1"):
        load(root, image_size=0)


def test_missing_parts_and_classes_are_named(root):
    with pytest.raises(ValueError, match=r"dataset\.root=.*nowhere: no such folder"):
        load(root.parent / "nowhere")
    shutil.move(root / "test", root / "tests")
    with pytest.raises(ValueError, match=r"has no folder 'test'; .*holds \['tests', 'train'\]"):
        load(root)


def test_differing_classes_are_named(root):
    write(root / "test" / "eel" / "0.png")
    with pytest.raises(ValueError, match=r"'train' and 'test' hold different classes; .*in test: \['eel'\]"):
        load(root)


def test_an_empty_class_is_named(root):
    (root / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"train: Found no valid file for the classes eel"):
        load(root)


def test_a_part_without_classes_is_named(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    with pytest.raises(ValueError, match=r"Couldn't find any class folder in .*train"):
        load(root)


@pytest.mark.parametrize("cached", [True, False])
def test_file_names_that_are_no_utf_8_are_read(cached, root):
    before = load(root).digest
    os.rename(root / "train/cat/5.png", os.fsencode(root) + b"/train/cat/5\xff.png")
    data = load(root, **({} if cached else {"cache_dir": None}))
    assert data.train.examples == 12 and data.digest == before
    streamed = load(root, max_memory_mb=0, image_size=8)
    assert streamed.digest["train"] and len(list(streamed.test.epoch(0))) == 1


def test_a_broken_image_of_such_a_name_is_named(root):
    with open(os.fsencode(root) + b"/train/cat/5\xff.png", "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"cannot read the image .*cat/5\\xff\.png"):
        load(root)
    with pytest.raises(ValueError, match=r"cannot read the image .*cat/5\\xff\.png"):
        list(load(root, max_memory_mb=0, image_size=8).train.epoch(0))


def test_a_class_folder_of_such_a_name_is_refused_by_name(root):
    for part in ("train", "test"):
        os.rename(root / part / "cat", os.fsencode(root / part) + b"/c\xe4t")
    with pytest.raises(ValueError, match=r"train: the name of the class folder c\\xe4t is not UTF-8; rename it"):
        load(root)
