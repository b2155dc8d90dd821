"""docs/stored_file.md is enough to write a reader: a reader written from it reads the files of the package."""

from pathlib import Path

import numpy as np
import pytest
import torch
from docs.independent_reader import read_file
from helpers.storage_models import WAYS, Tied, as_version2, attached, good_file, network, wide
from helpers.stored_files import SAME

from diffq_exp import storage
from diffq_exp.stored.grids import Stored
from diffq_exp.stored.network import StoredModel


def assert_same_network(read, stored: StoredModel) -> None:
    assert (read["method"], read["tied"]) == (stored.method, stored.tied)
    assert read["tensors"].keys() == stored.tensors.keys() and read["plain"].keys() == stored.plain().keys()
    for name, tensor in stored.tensors.items():
        values = torch.from_numpy(read["tensors"][name])
        assert values.shape == tensor.shape and torch.equal(values.to(tensor.dtype), tensor.values()), name
    for name, tensor in stored.plain().items():
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert read["plain"][name] == raw, name


def assert_read(source, coding: str = "auto", old: bool = False, **options) -> None:
    data = storage.serialize(source, {"note": [1, "x"]}, coding=coding, **options)
    read = read_file(as_version2(data) if old else data)
    assert_same_network(read, storage.stored_model_of(source, **options))
    assert read["config"] == {"note": [1, "x"]}


@pytest.mark.parametrize("coding", ["auto", "packed"])
@pytest.mark.parametrize("way", WAYS)
def test_every_method(way, coding):
    assert_read(attached(way, network()), coding=coding)


@pytest.mark.parametrize("way", ["diffq 8, tails", "uniform 2.5", "lsq 3"])
def test_curves_for_levels(way):
    """Wide enough that levels are entropy-coded."""
    assert_read(attached(way, wide()))


def test_tied_weights():
    assert_read(attached("diffq 3, divides", Tied()))


@pytest.mark.parametrize("way", ["diffq 8, tails", "lsq 3", "none"])
def test_format_2(way):
    assert_read(attached(way, network()), old=True)


@pytest.mark.parametrize("way", ["rate", "none"])
def test_small_floats(way):
    assert_read(attached(way, wide()), float="int8", fold=True)


def test_tensors_of_one_value():
    """Of every type."""
    assert_read(StoredModel("none", {}, {"weight": torch.full((3, 2), -0.0)}, SAME))


def test_files_of_an_earlier_release():
    for path in sorted((Path(__file__).parents[1] / "earlier_version/outputs").glob("*/model.safetensors")):
        assert_same_network(read_file(path.read_bytes()), storage.read(path)[0])


@pytest.mark.parametrize("coding", ["auto", "packed", "format 2"])
def test_coded_widths_and_a_damaged_file(coding, tmp_path):
    data = as_version2(good_file("auto")) if coding == "format 2" else good_file(coding)
    (tmp_path / "file").write_bytes(data)
    assert_same_network(read_file(data), storage.read(tmp_path / "file")[0])
    damaged = bytearray(data)
    damaged[-100] ^= 1
    with pytest.raises(AssertionError):
        read_file(bytes(damaged))


@pytest.mark.parametrize("scales", [(-1.0, 2.0), (0.25, 2.0)])
def test_groups_of_zero_bits(scales):
    bits = torch.from_numpy(np.array([0, 2, 0, 9], np.uint8))
    levels = torch.tensor([0, 0, 3, 1, 0, 0, 511], dtype=torch.int16)
    stored = Stored("minmax", (7,), torch.float32, 2, levels, bits, torch.tensor(scales))
    assert_read(StoredModel("diffq", {"weight": stored}, {}, {}))
