"""Groups of 0 bits through a file: they hold one value, 0 where the range has it, else its nearer end."""

import numpy as np
import pytest
import torch
from helpers.storage_models import Bag, same_stored

from diffq_exp import storage
from diffq_exp.stored.grids import Stored, check_stored
from diffq_exp.stored.network import StoredModel

FLOAT = torch.float32
both = pytest.mark.parametrize("coding", storage.write.CODINGS)


def made(
    grid: str, entries: int, group_size: int, bits: list[int], scales: list[float], top=None, dtype=torch.float32
):
    """A tensor by hand, its levels at random below what their group's bits allow."""
    per_entry = torch.tensor(bits).repeat_interleave(group_size or entries)[:entries]
    tops = torch.where(per_entry > 0, 2**per_entry - 1 if top is None else top, 0)
    levels = (torch.rand(entries, generator=torch.Generator().manual_seed(0)) * (tops + 1)).int().clamp(max=tops)
    table = torch.tensor(bits, dtype=torch.uint8)
    stored = Stored(grid, (entries,), dtype, group_size, levels.to(torch.int16), table, torch.tensor(scales), top)
    check_stored("w0", stored)
    return stored


def through_a_file(stored: Stored, path, coding: str) -> torch.Tensor:
    """Write, read, load into a network; -> its weight."""
    source = StoredModel("made", {"w0": stored}, {}, {})
    path.write_bytes(storage.serialize(source, coding=coding))
    same_stored(storage.read(path)[0], source)
    network = Bag((len(stored.levels),)).to(stored.dtype)
    storage.load(path, network)
    return network.w0.detach()


def expected(stored: Stored) -> np.ndarray:
    """The values by numpy, an entry at a time, float32."""
    low, high = (stored.scales.numpy()[0], stored.scales.numpy()[-1])
    size, values = stored.group_size or len(stored.levels), []
    for place, level in enumerate(stored.levels.tolist()):
        bits = int(stored.bits[place // size])
        if stored.grid == "step":
            values.append(np.float32(level - (2 ** (bits - 1) if bits else 0)) * low)
        elif bits == 0:
            values.append(np.clip(np.float32(0), low, high))
        else:
            top = np.float32(2**bits - 1 if stored.top is None else stored.top)
            values.append(np.float32(level) / top * (high - low) + low)
    return np.array(values, np.float32)


@both
@pytest.mark.parametrize("scales", [[-1.0, 2.0], [0.5, 2.0], [-3.0, -0.25], [0.0, 1.0], [0.0, 0.0], [1.5, 1.5]])
@pytest.mark.parametrize(
    ("entries", "group_size", "bits", "top"),
    [
        (1000, 8, [0, 3, 4, 0, 2] * 25, None),
        (1003, 8, [3, 3, 4, 5, 2] * 25 + [0], None),  # the shorter group at the end
        (1003, 8, [0, 0, 0, 0, 0] * 25 + [9], None),
        (40, 1, [0, 15] * 20, None),
        (77, 0, [0], None),
        (77, 100, [0], None),
        (1, 8, [0], None),
        (1, 1, [4], None),
        (800, 8, [0, 3] * 50, 4),
    ],
)
def test_minmax(path, coding, entries, group_size, bits, top, scales):
    stored = made("minmax", entries, group_size, bits, scales, top)
    weight = through_a_file(stored, path, coding)
    np.testing.assert_array_equal(weight.numpy(), expected(stored))
    empty = torch.tensor(bits).repeat_interleave(group_size or entries)[:entries] == 0
    assert (weight[empty] == min(max(0.0, scales[0]), scales[1])).all()


@both
@pytest.mark.parametrize("bits", [0, 1, 4, 15])
@pytest.mark.parametrize("entries", [1, 500])
def test_step(path, coding, bits, entries):
    stored = made("step", entries, 0, [bits], [0.25])
    weight = through_a_file(stored, path, coding)
    np.testing.assert_array_equal(weight.numpy(), expected(stored))
    assert bits or not weight.any()


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_of_other_types(path, coding, dtype):
    stored = made("minmax", 1000, 8, [0, 3, 4, 0, 2] * 25, [0.3, 2.0], dtype=dtype)
    weight = through_a_file(stored, path, coding)
    assert torch.equal(weight, torch.from_numpy(expected(stored)).to(dtype))


@both
@pytest.mark.parametrize("entries", [10, 2**20, 2**22])
def test_a_network_without_any_bits(path, coding, entries):
    """What `serialize` writes `read` believes, however little it takes."""
    through_a_file(made("minmax", entries, 8, [0] * -(-entries // 8), [-1.0, 1.0]), path, coding)
