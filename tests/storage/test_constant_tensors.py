"""Plain tensors whose entries are all the same: a value in the index, that comes back to the last bit."""

import math

import numpy as np
import pytest
import torch
from helpers.storage_models import as_version2, same_bits
from helpers.stored_files import SAME, changed, parts_of
from torch import nn

from diffq_exp import storage
from diffq_exp.stored.floats import is_constant
from diffq_exp.stored.network import StoredModel

OTHERS = {  # as bytes
    "both zeros": torch.tensor([0.0, -0.0]),
    "both zeros, other way": torch.tensor([-0.0, 0.0, 0.0]),
    "nan": torch.full((3,), math.nan),
    "inf": torch.full((3,), -math.inf),
    "scalar": torch.tensor(0.5),
    "one": torch.tensor([0.5]),
    "nothing": torch.empty(0, 4),
    "no integers": torch.empty(0, dtype=torch.int64),
    "different": torch.tensor([1, 1, 2], dtype=torch.int32),
    "mask": torch.tensor([True, False]),
    "nearly": torch.tensor([1.0, 1.0000001]),
}
assert not same_bits(OTHERS["both zeros"], torch.zeros(2))


def of(tensors: dict[str, torch.Tensor]) -> StoredModel:
    return StoredModel("none", {}, {}, dict(tensors))


def test_they_come_back_to_the_last_bit(path):
    """And in memory of their own, as any other tensor."""
    data = storage.serialize(of(SAME | OTHERS))
    for file in (data, as_version2(storage.serialize(of({k: v for k, v in SAME.items() if k != "bfloat16"})))):
        path.write_bytes(file)
        read = storage.read(path)[0].buffers
        for name, value in read.items():
            given = (SAME | OTHERS)[name]
            assert value.dtype == given.dtype and value.shape == given.shape and same_bits(value, given), name
            assert value.is_contiguous() and (value.numel() < 2 or value.stride()[-1])
    rows = {row[0]: row for row in parts_of(data).index["buffers"]}
    assert {name for name, row in rows.items() if len(row) == 4} == SAME.keys()
    assert math.copysign(1, rows["negative zeros"][3]) == -1


def test_what_is_constant():
    assert all(map(is_constant, SAME.values()))
    nan = {"nan", "inf"}  # constant, but not as a value
    assert {name for name, value in OTHERS.items() if is_constant(value)} == nan


def test_a_parameter_takes_its_row_only(path):
    small, large = (storage.serialize(of({"w": torch.full((size,), 0.5)})) for size in (10, 10**5))
    assert len(large) - len(small) < 10


def test_more_entries_than_are_plausible_are_padded(path):
    """A large network of zeros is read back: zeros follow where the file would be too small."""
    size = storage.save(of({"w": torch.zeros(2**21)}), path)
    assert 2**14 <= size <= 2**14 + 200 and storage.read(path)[0].buffers["w"].shape == (2**21,)


WRONG = {
    "float32": [None, 1, True, "0.5", [0.5], {}, 0.1, 1e39, math.nan, math.inf, -math.inf, 10**400],
    "float16": [0.1, 65520.0, 7],
    "bfloat16": [0.1],
    "float64": [3, math.nan, 10**400],
    "int64": [0.0, True, None, "3", 2**63, -(2**63) - 1, 10**400, [3]],
    "uint8": [-1, 256, 1.0],
    "int8": [128, -129],
    "bool": [0, 1, 2, 1.0, "true", None],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_that_is_none_of_its_type(kind, path):
    good = storage.serialize(of({"w": torch.ones(3, dtype=getattr(torch, kind))}))
    for value in WRONG[kind]:

        def change(parts, value=value):
            parts.index["buffers"][0][3] = value

        path.write_bytes(changed(good, change))
        with pytest.raises(ValueError, match=r"tensor 'w': .* is no value of torch\.") as caught:
            storage.read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("row", [["w"], ["w", [3]], ["w", [3], "float32", 0.5, 0.5], []])
def test_rows_of_another_length(row, path):
    good = storage.serialize(of({"w": torch.ones(3)}))
    path.write_bytes(changed(good, lambda parts: parts.index.update(buffers=[row])))
    with pytest.raises(ValueError, match="malformed"):
        storage.read(path)


@pytest.mark.parametrize("shape", [[2**40], [2**20, 2**20], [2**21]])
def test_a_value_for_very_many_entries(shape, path):
    """Refused before memory goes to them, whatever reads them."""
    model = nn.BatchNorm1d(3).eval()
    good = storage.serialize(model)

    def change(parts):
        parts.index["buffers"][0][1] = shape
        parts.entries["floats"] = parts.entries["floats"].astype(np.uint8)

    path.write_bytes(changed(good, change))
    with pytest.raises(ValueError, match=r"not plausible"):
        storage.read(path)
    with pytest.raises(ValueError, match=r"running_mean.*is stored with shape"):
        storage.load(path, model)


def test_a_value_for_no_entries_is_no_entry(path):
    path.write_bytes(
        changed(
            storage.serialize(of({"w": torch.ones(3)})), lambda parts: parts.index["buffers"][0].__setitem__(1, [0])
        )
    )
    assert storage.read(path)[0].buffers["w"].shape == (0,)
