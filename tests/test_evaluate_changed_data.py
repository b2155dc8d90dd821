"""python -m diffq_exp.evaluate where the data set is no longer what the network was trained on."""

import shutil

import numpy as np
import pytest
import torch
from helpers.stored_networks import config, network, store
from PIL import Image
from torch.nn.functional import cross_entropy

from diffq_exp import models, storage
from diffq_exp.common.files import write_json
from diffq_exp.data import image_folder
from diffq_exp.evaluate import main

NODE = {
    "image_size": None, "channels": 1, "mean": None, "std": None, "max_memory_mb": 100, "crop": 0, "flip": False,
    "cache_dir": None, "min_scale": 0.5, "seed": 0, "val_fraction": 0.5,
}  # fmt: skip


def write(folder, count, low=0, high=256, size=(8, 8)):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng([index, low]).integers(low, high, size, np.uint8)
        Image.fromarray(pixels).save(folder / f"{low}-{index}.png")


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate("abcd"):
        for part in ("train", "test"):
            write(tmp_path / "set" / part / name, 4, 20 * number)
    return tmp_path / "set"


@pytest.fixture
def run(root, tmp_path):
    """A run's folder: the network stands for one that was trained on `root` as it is."""
    conf = config()
    node = {"_target_": "diffq_exp.data.image_folder", "root": str(root), **NODE}
    conf["dataset"] = {"name": "image_folder", "node": node}
    conf["input"] = image_folder(root=str(root), device="cpu", batch_size=8, **NODE).input
    store(tmp_path / "run", conf, network())
    return tmp_path / "run"


def said(capsys, *words):
    """What a command that does says, and what it warns of."""
    assert main([*map(str, words), "--device", "cpu"]) == 0
    return capsys.readouterr()


def test_the_statistics_are_those_of_the_network(root, run, capsys):
    before = said(capsys, run)
    write(root / "train" / "a", 3, 240, 256)  # brighter by far
    after = said(capsys, run)
    assert [line for line in after.out.splitlines() if line.startswith("test.")] == [
        line for line in before.out.splitlines() if line.startswith("test.")
    ]
    assert after.err == before.err == ""


def test_a_set_that_has_grown_too_large_for_memory_keeps_them(root, run, tmp_path):
    """Streamed, it would be normalised by the statistics of ImageNet."""
    data = image_folder(
        root=str(root), device="cpu", batch_size=8, **{**NODE, "max_memory_mb": 0.0001, "image_size": 8}
    )
    data.normalise_by([0.4], [0.2])
    low, high = (value / 0.2 for value in (-0.4, 0.6))
    inputs = next(data.test.epoch(0))[0]
    assert low <= float(inputs.min()) < low + 1 and high - 1 < float(inputs.max()) <= high + 1e-5


@pytest.mark.parametrize("option", [[], ["--sensitivity"]])
def test_a_renamed_class_is_refused_and_named(option, root, run, capsys):
    for part in ("train", "test"):
        (root / part / "a").rename(root / part / "z")
    assert main([str(run), "--device", "cpu", *option]) == 2
    assert capsys.readouterr().err.endswith(
        "the classes differ: only the network has ['a']; only the data set has ['z']\n"
    )


def test_a_class_more_is_refused_and_named(root, run, capsys):
    for part in ("train", "test"):
        write(root / part / "e", 4)
    assert main([str(run), "--device", "cpu"]) == 2
    assert capsys.readouterr().err.endswith("the classes differ: only the data set has ['e']\n")


def test_a_class_less_is_told_and_the_others_keep_their_numbers(root, run, capsys):
    """Of "b" alone each image is class 1 of the network, as it is where all classes are there."""
    for part in ("train", "test"):
        for name in "acd":
            shutil.rmtree(root / part / name)
    told = said(capsys, run)
    assert told.err == "warning: the classes differ: only the network has ['a', 'c', 'd']\n"
    data = image_folder(root=str(root), device="cpu", batch_size=8, **NODE)
    data.normalise_by(*(storage.read(run / "model.safetensors")[1]["input"][key] for key in ("mean", "std")))
    images, _ = next(data.test.epoch(0))
    loss = cross_entropy(network()(images), torch.ones(4, dtype=torch.long))
    assert float(told.out.split()[1]) == pytest.approx(loss.item(), rel=1e-4)


def test_the_folder_of_a_run_says_whether_its_data_have_changed(root, run, capsys):
    digest = image_folder(root=str(root), device="cpu", batch_size=8, **NODE).digest
    record = {"status": "finished", "signature": "0123456789", "data": {"test": 16, "digest": digest}}
    write_json(run / "result.json", record)
    assert said(capsys, run).err == ""
    write(root / "test" / "a", 1, 250)
    assert said(capsys, run).err == "warning: the data have changed since the run: test (16 examples, now 17)\n"
    assert said(capsys, run / "model.safetensors").err == ""


def test_images_of_a_size_that_the_network_does_not_take_are_told(root, run, capsys):
    conf = storage.read(run / "model.safetensors")[1]
    conf["model"]["keys"] |= {"image_size": 28}
    conf["model"] |= {"name": "lenet5"}
    conf["model"]["node"] = {"_target_": "diffq_exp.models.lenet5"}
    store(run, {**conf, "input": {**conf["input"], "shape": [1, 28, 28]}}, models.lenet5(4, 1))
    assert main([str(run), "--device", "cpu"]) == 2
    assert (
        "the network does not take the inputs of image_folder, [1, 8, 8]: RuntimeError" in capsys.readouterr().err
    )


@pytest.mark.parametrize("text", ["{", '{"status": "finished", "signature": "0123456789", "data": 3}'])
def test_a_damaged_record_is_told_and_the_network_is_measured(text, run, capsys):
    expected = said(capsys, run).out
    (run / "result.json").write_text(text)
    out, err = said(capsys, run)
    assert out == expected and err.startswith("warning: whether the data have changed since the run cannot be told")
    assert f": {run / 'result.json'}: " in err and err.count("\n") == 1
    (run / "result.json").write_text('{"status": "ok", "data": 3}')  # of somebody else
    assert said(capsys, run).err == ""
    (run / "model.safetensors").unlink()
    (run / "result.json").write_text(text)
    assert main([str(run)]) == 2
    assert "the run has no model.safetensors" in capsys.readouterr().err
