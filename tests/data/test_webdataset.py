"""Tar shards of images: what the webdataset library wrote is read as it reads it, in an order that resumes."""

import io
import json
import pickle
import sys
import tarfile

import numpy as np
import pytest
import torch
from helpers.tar_shards import write
from PIL import Image

from diffq_exp.data.shard_files import Cache, members_of
from diffq_exp.data.shards import AT_ONCE, Shard, Shards, index_of, shards_of

library = pytest.importorskip("webdataset", reason="no webdataset: pip install webdataset")

from diffq_exp.data import webdataset  # noqa: E402


@pytest.fixture
def root(tmp_path):
    """Six shards of 4 images to train on, one of 4 to test on."""
    for shard in range(6):
        write(tmp_path / f"train-{shard}.tar", range(4 * shard, 4 * shard + 4))
    write(tmp_path / "test.tar", range(100, 104))
    return tmp_path


def load(root, **changes):
    how = {
        "train": f"{root}/train-{{0..5}}.tar", "test": f"{root}/test.tar", "val": None, "num_classes": 2,
        "image_size": 8, "channels": 3, "mean": None, "std": None, "min_scale": 0.5, "cache_gb": None,
        "cache_dir": str(root / "cache"), "device": "cpu", "batch_size": 5, "seed": 0, "val_fraction": 0.0,
        "flip": True, "num_workers": 0,
    }  # fmt: skip
    return webdataset(**{**how, **changes})


def dataset(root, spec=None, cache=None):
    return Shards(shards_of(spec or f"{root}/train-{{0..5}}.tar"), cache or Cache(str(root)), 2, 3)


def test_samples_are_those_that_the_library_reads(root):
    write(root / "odd.tar", range(3), **{"json": {"a": 1}, "seg.txt": "x"})
    spec = f"{root}/train-{{0..5}}.tar::{root}/odd.tar"
    theirs = []
    for url in library.shardlists.expand_urls(spec):
        with open(url, "rb") as stream:
            files = library.tariterators.tar_file_expander([{"url": url, "stream": stream}])
            theirs += list(library.tariterators.group_by_keys(files))
    ours = dataset(root, spec)
    assert len(ours) == len(theirs) == 27
    for at, sample in enumerate(theirs):
        image, target = ours[at]
        assert target == int(sample["cls"])
        assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(sample["png"]))))


def test_parts_and_batches(root):
    data = load(root)
    assert data.shape == (3, 8, 8) and data.classes == ["0", "1"] and data.val is None
    assert [len(targets) for _, targets in data.train.epoch(0)] == [5, 5, 5, 5, 4]
    assert torch.cat([targets for _, targets in data.test.epoch(0)]).tolist() == [0, 1, 0, 1]


def test_an_epoch_resumes_at_any_batch_with_any_number_of_workers(root):
    whole = list(load(root).train.epoch(3))
    for start, workers in ((2, 0), (4, 0), (3, 2)):
        again = list(load(root, num_workers=workers).train.epoch(3, first_batch=start))
        assert len(again) == len(whole) - start
        assert all(
            torch.equal(a, b) for x, y in zip(again, whole[start:], strict=True) for a, b in zip(x, y, strict=True)
        )


def test_an_order_goes_through_a_few_shards_at_a_time(root):
    shards = dataset(root)
    orders = [shards.order(0, epoch) for epoch in (0, 1)] + [shards.order(1, 0)]
    for order in orders:
        assert order.sort().values.tolist() == list(range(24))
        assert len(set((order[: 4 * AT_ONCE] // 4).tolist())) == AT_ONCE
        assert len(set((order[:4] // 4).tolist())) > 1
    assert len({tuple(order.tolist()) for order in orders}) == 3


def test_whole_shards_are_held_out(root):
    data = load(root, val_fraction=0.2)
    assert (data.train.examples, data.val.examples) == (16, 8)
    assert load(root, val=f"{root}/train-0.tar", val_fraction=0.2).train.examples == 24
    with pytest.raises(
        ValueError, match=r"^val_fraction=0.5: 1 shards are too few to hold 1 out; give dataset.val"
    ):
        load(root, train=f"{root}/train-0.tar", val_fraction=0.5)


def test_a_changed_shard_changes_the_digest(root):
    before = load(root).digest
    assert set(before) == {"train", "test"} and load(root, val_fraction=0.2, seed=4).digest == before
    write(root / "test.tar", range(101, 105))
    assert load(root).digest["test"] != before["test"] and load(root).digest["train"] == before["train"]


def test_an_index_counts_in_place_of_reading(root):
    index = index_of(shards_of(f"{root}/train-{{0..5}}.tar"))
    for entry in index["shardlist"]:
        entry["url"] = entry["url"].rpartition("/")[2]
    (root / "train.json").write_text(json.dumps(index))
    assert shards_of(f"{root}/train.json") == shards_of(f"{root}/train-{{0..5}}.tar")
    before = load(root, train=f"{root}/train.json").digest
    for entry in index["shardlist"]:
        entry["url"] = f"file:{root}/{entry['url']}"
    (root / "train.json").write_text(json.dumps(index))
    assert shards_of(f"{root}/train.json") == shards_of(f"{root}/train-{{0..5}}.tar")
    assert load(root, train=f"{root}/train.json").digest == before
    (root / "train.json").write_text(json.dumps({"shardlist": [{"url": "train-0.tar", "nsamples": 5}]}))
    with pytest.raises(ValueError, match="it has 4 samples, and 5 were counted; has it changed, or its index"):
        list(dataset(root, f"{root}/train.json"))


def test_shards_that_lie_elsewhere_are_brought_once(root, monkeypatch):
    opened = []

    def elsewhere(url, mode="rb", bufsize=8192):
        opened.append(url)
        return open(root / url.rpartition("/")[2], "rb")

    monkeypatch.setitem(library.gopen.__globals__["gopen_schemes"], "https", elsewhere)
    addresses = [f"https://host/{shard}/train-{shard}.tar" for shard in range(2)]
    (root / "far.json").write_text(json.dumps(index_of([Shard(url, 4) for url in addresses])))
    cache = Cache(str(root / "cache"))
    far = dataset(root, f"{root}/far.json", cache)
    assert [target for _, target in far] == [0, 1] * 4 and opened == addresses
    assert len(pickle.loads(pickle.dumps(far))) == 8 and len(list(pickle.loads(pickle.dumps(far)))) == 8
    assert opened == addresses
    data = load(root, train=f"{root}/far.json")
    assert len(list(data.train.epoch(0))) == 2 and opened == addresses
    (root / "train-1.tar").unlink()
    with pytest.raises(ValueError, match=r"^https://host/1/train-1.tar: cannot be brought"):
        list(dataset(root, f"{root}/far.json", Cache(str(root / "other"))))
    with pytest.raises(ValueError, match=r"^dataset.cache_gb=-1 is below 0"):
        load(root, cache_gb=-1)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("pipe:cat /etc/passwd", "pipe: is not allowed"),
        ("https://host/a.tar", "need an index"),
        ("{root}/none.tar", "none.tar: cannot be read (No such file or directory)"),
        ("{root}/none.json", "none.json: cannot be read"),
        ("{root}/packed.tar.gz", "no tar file, or a compressed one"),
        ("{root}/wrong.json", "no index of shards"),
        ("{root}/pipe.json", "pipe: is not allowed"),
        ("{root}/below.json", "below.json: nsamples of train-0.tar is -4, allowed are whole numbers from 0 on"),
        ("{root}/half.json", "nsamples of train-0.tar is 3.5"),
        ("{root}/true.json", "nsamples of train-0.tar is True"),
    ],
)
def test_what_is_no_shard_is_named(spec, told, root):
    with tarfile.open(root / "packed.tar.gz", "w:gz") as tar:
        tar.add(root / "test.tar")
    (root / "wrong.json").write_text("[1]")
    for name, number in (("below", -4), ("half", 3.5), ("true", True)):
        (root / f"{name}.json").write_text(json.dumps(index_of([Shard("train-0.tar", number)])))
    (root / "pipe.json").write_text(json.dumps(index_of([Shard("pipe:true", 1)])))
    with pytest.raises(ValueError) as raised:
        shards_of(spec.format(root=root))
    assert told in str(raised.value)


def test_without_the_library_it_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ValueError, match=r"needs its package: pip install .*webdataset"):
        load(root)


def test_a_sample_that_is_none_is_named(root):
    write(root / "a.tar", [3], classes=9)
    with pytest.raises(ValueError, match=r"a.tar, sample 0: its class is b'3', allowed are 0..1"):
        list(dataset(root, f"{root}/a.tar"))
    with library.TarWriter(str(root / "b.tar")) as tar:
        tar.write({"__key__": "0", "png": b"none", "cls": 0})
        tar.write({"__key__": "1", "cls": 0})
    with pytest.raises(ValueError, match=r"cannot read the image .*b.tar, sample 0"):
        dataset(root, f"{root}/b.tar")[0]
    with pytest.raises(ValueError, match=r"sample 1: needs .cls and one of jpg, jpeg, png, webp; it has \['cls'\]"):
        dataset(root, f"{root}/b.tar")[1]
    with open(root / "b.tar", "rb") as file:
        assert len(members_of(file, "b.tar")) == 2
