"""The sources that are neither folders nor helpers: digits, downloads, synthetic."""

import hashlib
import multiprocessing
import pickle
import struct
import time
import urllib.error

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from diffq_exp.data import cifar10, cifar100, digits, mnist, synthetic
from diffq_exp.data.digits import _rows as rows_of_digits

HOW = {"device": "cpu", "batch_size": 16, "seed": 0, "val_fraction": 0.0, "crop": 0, "flip": False}


def everything(loader):
    batches = list(loader.epoch(0))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_the_digits_are_all_there_and_their_test_part_is_the_same_for_every_seed():
    first, second = (digits(**{**HOW, "seed": seed, "val_fraction": 0.2}) for seed in (0, 1))
    assert first.shape == (1, 8, 8) and len(first.classes) == 10
    assert (first.train.examples, first.val.examples, first.test.examples) == (958, 240, 599)
    images, targets = everything(first.test)
    assert everything(second.test)[0].equal(images)
    assert not everything(second.val)[0].equal(everything(first.val)[0])
    counts = torch.bincount(targets)
    assert counts.min() >= 58 and counts.max() <= 61
    whole = digits(**HOW)
    assert whole.train.examples == 1198 and whole.val is None


def test_the_digits_are_those_of_scikit_learn_however_they_are_read(monkeypatch):
    loaded = load_digits()
    assert np.array_equal(rows_of_digits(), np.column_stack([loaded.data, loaded.target]))
    monkeypatch.setitem(rows_of_digits.__globals__, "find_spec", lambda name: None)  # the file is elsewhere
    assert np.array_equal(rows_of_digits(), np.column_stack([loaded.data, loaded.target]))


def test_the_digits_come_normalised():
    images, _ = everything(digits(**HOW).train)
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3
    assert len(images.unique()) == 17  # the values 0..16 stay apart


def test_synthetic_images_can_be_learned_and_do_not_depend_on_the_seed_of_a_run():
    shape = {"num_classes": 5, "channels": 2, "image_size": 12, "train_images": 100, "test_images": 50}
    data = synthetic(**shape, data_seed=0, **HOW)
    assert data.shape == (2, 12, 12) and len(data.classes) == 5
    (x, y), (x_test, y_test) = everything(data.train), everything(data.test)
    centres = torch.stack([x[y == label].mean(0) for label in range(5)]).flatten(1)
    assert (torch.cdist(x_test.flatten(1), centres).argmin(1) == y_test).float().mean() > 0.95
    assert everything(synthetic(**shape, data_seed=0, **{**HOW, "seed": 5}).test)[0].equal(x_test)
    assert not everything(synthetic(**shape, data_seed=1, **HOW).test)[0].equal(x_test)
    with pytest.raises(ValueError, match=r"dataset\.num_classes=0 is not at least 1"):
        synthetic(**{**shape, "num_classes": 0}, data_seed=0, **HOW)


def write_cifar(folder, label_key):
    """A CIFAR in the format of its archive, 20 images a file; the checksums of its files by name."""
    folder.mkdir(parents=True)
    rng, sums = np.random.default_rng(0), {}

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()

    for name in ("train", "test"):
        pixels = rng.integers(0, 256, (20, 3072), np.uint8)
        write(name, {"data": pixels, label_key: [i % 2 for i in range(20)]})
    write("meta", {"label_names": ["cat", "dog"], "fine_label_names": ["cat", "dog"]})
    return sums


@pytest.mark.parametrize(
    ("source", "kind", "key"), [(cifar10, "CIFAR10", "labels"), (cifar100, "CIFAR100", "fine_labels")]
)
def test_cifar_is_read_from_a_folder_that_is_there(tmp_path, monkeypatch, source, kind, key):
    from torchvision import datasets

    original = getattr(datasets, kind)
    sums = write_cifar(tmp_path / original.base_folder, key)
    monkeypatch.setattr(original, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(original, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(original, "meta", {**original.meta, "filename": "meta", "md5": sums["meta"]})
    data = source(download_root=str(tmp_path), **HOW)
    assert data.shape == (3, 32, 32) and data.classes == ["cat", "dog"]
    stored = pickle.loads((tmp_path / original.base_folder / "test").read_bytes())["data"].reshape(-1, 3, 32, 32)
    mean, std = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    torch.testing.assert_close(everything(data.test)[0], (torch.from_numpy(stored) / 255 - mean) / std)
    assert not list(tmp_path.glob(".*.lock"))  # a shared folder may be read-only


def fetch_and_report(root, downloads, results):
    """Load CIFAR-10 with a download that takes a while and is told to `downloads`."""
    from torchvision import datasets

    def download(self):
        if not self._check_integrity():
            downloads.put(1)
            time.sleep(0.5)
            (root / "made").rename(root / datasets.CIFAR10.base_folder)

    datasets.CIFAR10.download = download
    results.put(cifar10(download_root=str(root), **HOW).train.examples)


def test_runs_that_start_together_download_once(tmp_path, monkeypatch):
    from torchvision import datasets

    sums = write_cifar(tmp_path / "made", "labels")
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "meta", "md5": sums["meta"], "key": "label_names"})
    context = multiprocessing.get_context("fork")
    downloads, results = context.Queue(), context.Queue()
    runs = [context.Process(target=fetch_and_report, args=(tmp_path, downloads, results)) for _ in range(2)]
    for run in runs:
        run.start()
    assert [results.get(timeout=60) for _ in runs] == [20, 20]
    for run in runs:
        run.join()
    assert downloads.get(timeout=5) == 1 and downloads.empty()


def test_mnist_is_read_from_a_folder_that_is_there(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 10)):
        images = np.arange(count * 784, dtype=np.uint8).tobytes()
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">iiii", 2051, count, 28, 28) + images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, count) + labels)
    data = mnist(download_root=str(tmp_path), **HOW)
    assert data.shape == (1, 28, 28) and (data.train.examples, data.test.examples) == (30, 10)


def no_network(*_args, **_kwargs):
    raise urllib.error.URLError("no network")


@pytest.mark.parametrize(
    ("source", "files"),
    [(cifar10, "cifar-10-python.tar.gz"), (mnist, "train-images-idx3-ubyte.gz, .*MNIST/raw")],
)
def test_without_network_the_files_and_their_place_are_named(tmp_path, monkeypatch, source, files):
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(ValueError, match=rf"could not be fetched \(.*no network.*\); put {files}") as caught:
        source(download_root=str(tmp_path / "new"), **HOW)
    assert "\n" not in str(caught.value) and str(tmp_path / "new") in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"CIFAR10 could not be fetched .*file"):
        cifar10(download_root=str(tmp_path / "file"), **HOW)
