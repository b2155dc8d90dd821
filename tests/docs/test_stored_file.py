"""docs/stored_file.md is enough to write a reader: a reader written from it reads the files of the package."""

import numpy as np
import pytest
import torch
from docs.independent_reader import read_file
from helpers.storage_models import WAYS, Tied, attached, good_file, network, wide

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


def assert_read(source, **options) -> None:
    read = read_file(storage.serialize(source, {"note": [1, "x"]}, **options))
    assert_same_network(read, storage.stored_model_of(source))
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


@pytest.mark.parametrize("coding", ["auto", "packed"])
def test_coded_widths_and_a_damaged_file(coding, tmp_path):
    data = good_file(coding)
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
