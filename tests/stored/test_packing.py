"""Bit-packing: round trips at every width, the layout against plain integers, exact lengths."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffq_exp.stored.packing import (
    bits_table_bytes,
    entries_per_width,
    pack,
    pack_bits,
    pack_levels,
    packed_bytes,
    packed_levels_bytes,
    unpack,
    unpack_bits,
    unpack_levels,
)

often = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31)


def numbers_below(top: int, count: int, seed: int) -> np.ndarray:
    """Random numbers in [0, top), the extremes among them."""
    numbers = np.random.default_rng(seed).integers(0, top, count)
    numbers[:1], numbers[-1:] = top - 1, 0
    return numbers


def bytes_of_bits(total: int) -> int:
    return -(-total // 8)


def reference(numbers, width: int) -> bytes:
    """The layout by Python's long integers: eights of `width` bits, little-endian; low bytes first above 8."""
    if width > 8:
        return bytes(int(n) & 255 for n in numbers) + reference([int(n) >> 8 for n in numbers], width - 8)
    whole = sum(int(n) << (width * place) for place, n in enumerate(numbers))
    return whole.to_bytes(bytes_of_bits(len(numbers) * width), "little")


# ---- one width ------------------------------------------------------------------------------------------------


@often
@given(st.integers(0, 15), st.integers(0, 70), seeds)
def test_round_trip(width, count, seed):
    numbers = numbers_below(2**width, count, seed).astype(np.int16)
    data = pack(numbers, width)
    assert data.dtype == np.uint8 and len(data) == packed_bytes(count, width) == bytes_of_bits(count * width)
    back = unpack(data, count, width)
    assert back.dtype == (np.uint8 if width <= 8 else np.int16) and np.array_equal(back, numbers)


@pytest.mark.parametrize("count", [1, 8, 9, 1000])
def test_round_trip_of_16_bits(count):
    """What comes back is int16: the same 16 bits."""
    numbers = numbers_below(2**16, count, 0)
    data = pack(numbers, 16)
    assert len(data) == 2 * count
    assert np.array_equal(unpack(data, count, 16).astype(np.uint16), numbers)


@pytest.mark.parametrize("width", range(17))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 129])
def test_the_layout(width, count):
    numbers = numbers_below(2**width, count, width)
    assert pack(numbers, width).tobytes() == reference(numbers, width)


@pytest.mark.parametrize("width", range(16))
def test_another_length_is_refused(width):
    data = pack(np.zeros(13, np.int16), width)
    for wrong in (np.concatenate([data, data[:1], np.zeros(1, np.uint8)]), data[:-1], data[:0]):
        if len(wrong) != len(data):
            with pytest.raises(ValueError, match=f"{len(wrong)} bytes"):
                unpack(wrong, 13, width)


# ---- groups of several widths ---------------------------------------------------------------------------------


@st.composite
def tensors(draw):
    """Levels (N,), widths (G,) and the group size, tails and whole tensors among them."""
    entries, group_size = draw(st.integers(1, 90)), draw(st.sampled_from([0, 1, 2, 3, 8, 16, 200]))
    groups = math.ceil(entries / (group_size or entries))
    bits = np.array(draw(st.lists(st.integers(0, 15), min_size=groups, max_size=groups)), np.uint8)
    per_entry = bits[np.arange(entries) // (group_size or entries)]
    source = np.random.default_rng(draw(seeds))
    levels = (source.random(entries) * 2.0**per_entry).astype(np.int16)
    levels[0] = 2 ** int(per_entry[0]) - 1
    return levels, bits, group_size


@often
@given(tensors())
def test_levels_round_trip(tensor):
    levels, bits, group_size = tensor
    data = pack_levels(levels, bits, group_size)
    assert data.dtype == np.uint8
    back = unpack_levels(data, bits, group_size, len(levels))
    assert back.dtype == (np.uint8 if bits.max() <= 8 else np.int16) and np.array_equal(back, levels)


@often
@given(tensors())
def test_levels_take_a_run_of_whole_bytes_for_each_width(tensor):
    levels, bits, group_size = tensor
    per_entry = bits[np.arange(len(levels)) // (group_size or len(levels))]
    runs = [reference(levels[per_entry == width], width) for width in sorted(set(per_entry.tolist()))]
    data = pack_levels(levels, bits, group_size)
    assert data.tobytes() == b"".join(runs)
    assert len(data) == packed_levels_bytes(bits, group_size, len(levels))


@often
@given(tensors(), st.integers(1, 3), st.booleans())
def test_levels_of_another_length_are_refused(tensor, more, fewer):
    levels, bits, group_size = tensor
    data = np.resize(pack_levels(levels, bits, group_size), packed_levels_bytes(bits, group_size, len(levels)))
    length = max(0, len(data) - more) if fewer else len(data) + more
    assume(length != len(data))
    wrong = np.zeros(length, np.uint8)
    with pytest.raises(ValueError, match="bytes"):
        unpack_levels(wrong, bits, group_size, len(levels))


@often
@given(st.integers(1, 100), st.integers(0, 40))
def test_entries_per_width(entries, group_size):
    groups = math.ceil(entries / (group_size or entries))
    bits = np.random.default_rng(entries).integers(0, 4, groups).astype(np.uint8)
    per_entry = bits[np.arange(entries) // (group_size or entries)]
    counted = {width: int((per_entry == width).sum()) for width in sorted(set(bits.tolist()))}
    assert entries_per_width(bits, group_size, entries) == counted


def test_levels_that_are_packed_are_small():
    """1,000,001 entries of 3 bits, a tail group among them."""
    levels = numbers_below(8, 1_000_001, 0).astype(np.int16)
    bits = np.full(125_001, 3, np.uint8)
    data = pack_levels(levels, bits, 8)
    assert len(data) == bytes_of_bits(3 * 1_000_001)
    assert np.array_equal(unpack_levels(data, bits, 8, len(levels)), levels)


# ---- tables of widths -----------------------------------------------------------------------------------------


@often
@given(st.lists(st.integers(0, 15), min_size=1, max_size=40))
def test_table_round_trip(widths):
    bits = np.array(widths, np.uint8)
    data = pack_bits(bits)
    span = int(bits.max()) - int(bits.min())
    assert len(data) == bits_table_bytes(bits) == 1 + bytes_of_bits(len(bits) * span.bit_length())
    back = unpack_bits(data, len(bits))
    assert back.dtype == np.uint8 and np.array_equal(back, bits)


def test_equal_widths_take_one_byte():
    assert len(pack_bits(np.full(1000, 15, np.uint8))) == 1


@pytest.mark.parametrize(
    ("data", "groups"),
    [
        ([], 1),
        ([0x10], 0),  # no group at all
        ([0x15, 0, 0, 0, 0, 0], 8),  # entries of 5 bits
        ([0x1F], 8),
        ([0xF1, 0b10], 2),  # 15 + 1 bits
        ([0x84, 0x8F], 2),  # 8 + 15, 8 + 8 bits
        ([0x11], 3),  # cut short
        ([0x11, 0, 0], 3),  # too long
        ([0x10, 0], 3),
    ],
)
def test_a_bad_table_is_refused(data, groups):
    with pytest.raises(ValueError):
        unpack_bits(np.array(data, np.uint8), groups)
