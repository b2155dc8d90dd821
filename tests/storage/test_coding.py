"""Levels and bits of one tensor as bytes: round trips whatever the widths and groups, never larger than packed."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq_exp.storage.coding import ANS, PACKED, Coded, decode_tensor, encode_tensor
from diffq_exp.stored.packing import bits_table_bytes, packed_levels_bytes

often = settings(max_examples=50, deadline=None, derandomize=True)
GROUP_SIZES = [0, 1, 2, 8, 7, 100_000]


def made(entries: int, group_size: int, widths, seed: int, top: int | None = None, bell: bool = False):
    """Levels (N,) int16 and bits (G,) drawn from `widths`; a fractional width has one `top` for all groups."""
    source = np.random.default_rng(seed)
    size = group_size or entries
    bits = source.choice(np.array(widths, np.uint8), math.ceil(entries / size))
    per_entry = bits[np.arange(entries) // size]
    tops = np.where(per_entry > 0, 2.0**per_entry - 1 if top is None else top, 0)
    share = np.clip(source.normal(0.5, 0.15, entries), 0, 1) if bell else source.random(entries)
    return np.rint(share * tops).astype(np.int16), bits


def sizes(coded: Coded) -> int:
    return len(coded.levels) + len(coded.bits) + len(coded.models)


def assert_round_trip(levels, bits, group_size, top=None) -> Coded:
    """By both codings; -> the smaller. Neither is larger than it says of itself."""
    auto, packed = (encode_tensor(levels, bits, group_size, top, levels.shape, plain) for plain in (False, True))
    for coded in (auto, packed):
        back, table = decode_tensor(coded, levels.shape, group_size, top)
        assert np.array_equal(back, levels) and np.array_equal(table, bits)
        assert table.dtype == np.uint8 and back.dtype == (np.uint8 if bits.max() <= 8 else np.int16)
        for part in (coded.levels, coded.bits, coded.models):
            assert part.dtype == np.uint8 and part.ndim == 1
    assert packed.coding == (PACKED, PACKED) and len(packed.models) == 0
    assert len(packed.levels) == packed_levels_bytes(bits, group_size, len(levels))
    assert len(packed.bits) == bits_table_bytes(bits)
    assert sizes(auto) <= sizes(packed)
    return auto


@pytest.mark.long
@often
@given(
    st.integers(1, 600),
    st.sampled_from(GROUP_SIZES),
    st.lists(st.integers(0, 11), min_size=1, max_size=5),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_round_trip(entries, group_size, widths, bell, seed):
    assert_round_trip(*made(entries, group_size, widths, seed, bell=bell), group_size)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("entries", [1, 2, 8, 15, 5000])
def test_all_widths_at_once(entries, group_size):
    assert_round_trip(*made(entries, group_size, range(16), 0), group_size)


@often
@given(st.integers(1, 300), st.integers(1, 500), st.sampled_from(GROUP_SIZES), st.booleans(), st.integers(0, 2**31))
def test_fractional_widths(entries, top, group_size, some_empty, seed):
    widths = [0, top.bit_length()] if some_empty else [top.bit_length()]
    assert_round_trip(*made(entries, group_size, widths, seed, top), group_size, top)


@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("top", [None, 5])
def test_groups_of_no_bits_only(group_size, top):
    """They take a byte, which is the table."""
    coded = assert_round_trip(*made(5000, group_size, [0], 0), group_size, top)
    assert sizes(coded) == 1 and coded.coding == (PACKED, PACKED)


@pytest.mark.parametrize("value", [0, 3, 7])
def test_constant_levels(value):
    """A constant tensor of many entries is a hundredth of what packing makes of it."""
    coded = assert_round_trip(np.full(80_000, value, np.int16), np.full(10_000, 3, np.uint8), 8)
    assert coded.coding == (ANS, PACKED) and sizes(coded) < 80_000 * 3 / 8 / 100


def test_bytes_in_place_of_int16():
    """Levels may be uint8 where they fit."""
    levels, bits = made(3000, 8, [2, 3, 4], 0, bell=True)
    one, other = (encode_tensor(given, bits, 8, None, given.shape) for given in (levels, levels.astype(np.uint8)))
    assert [getattr(one, part).tobytes() for part in ("levels", "bits", "models")] == [
        getattr(other, part).tobytes() for part in ("levels", "bits", "models")
    ]


def test_bells_and_skewed_tables_are_entropy_coded():
    source = np.random.default_rng(0)
    bits = source.choice(np.array([2, 3, 4, 5], np.uint8), 10_000, p=[0.02, 0.05, 0.9, 0.03])
    levels = np.rint(np.clip(source.normal(0.5, 0.12, 80_000), 0, 1) * (2.0 ** np.repeat(bits, 8) - 1))
    coded = assert_round_trip(levels.astype(np.int16), bits, 8)
    assert coded.coding == (ANS, ANS)
    shares = np.unique(bits, return_counts=True)[1] / len(bits)
    assert len(coded.bits) < 1.01 * 10_000 * -(shares * np.log2(shares)).sum() / 8 + 16
    assert len(coded.levels) < 0.87 * packed_levels_bytes(bits, 8, 80_000)


# ---- bytes that are not those of such a tensor ----------------------------------------------------------------

LEVELS, TABLE = made(4000, 8, [0, 2, 3, 3, 3, 3, 3, 3, 3, 3], 0, bell=True)
CODED = {plain: encode_tensor(LEVELS, TABLE, 8, None, LEVELS.shape, plain) for plain in (False, True)}


def refused(coded: Coded, entries: int = 4000, group_size: int = 8, top: int | None = None) -> None:
    with pytest.raises(ValueError):
        decode_tensor(coded, (entries,), group_size, top)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("part", ["levels", "bits", "models"])
def test_parts_cut_short_or_longer(plain, part):
    """No words at all are the code of zeros."""
    coded = CODED[plain]
    data = getattr(coded, part)
    assert plain or coded.coding == (ANS, ANS)
    for more in (b"\0", b"\1", b"\xff", b"\1\0\0\0"):
        refused(replace(coded, **{part: np.append(data, np.frombuffer(more, np.uint8))}))
    shortest = 0 if plain or part != "levels" else 1
    for length in {shortest, 1, 2, 4, len(data) // 2, len(data) - 4, len(data) - 1} & set(range(len(data))):
        refused(replace(coded, **{part: data[:length]}))


@pytest.mark.parametrize("plain", [False, True])
def test_other_shapes_and_codings(plain):
    """Fewer groups, or of another size; that there are more is not always seen: zeros at the end take nothing."""
    coded = CODED[plain]
    for entries, group_size in ((3992, 8), (4000, 9), (4000, 7), (4000, 1), (4000, 0), (1, 1)):
        refused(coded, entries, group_size)
    for coding in ((ANS, ANS), (ANS, PACKED), (PACKED, ANS), (PACKED, PACKED)):
        if coding != coded.coding:
            refused(replace(coded, coding=coding))


def test_a_highest_level_below_a_level():
    coded = encode_tensor(np.array([7, 2], np.int16), np.array([3], np.uint8), 0, None, (2,), packed=True)
    refused(coded, 2, 0, 6)


@pytest.mark.parametrize("first", [0x00, 0x33, 0x32, 0xFF, 0xF0])
def test_a_coded_table_whose_widest_is_not_wider_than_its_narrowest(first):
    table = CODED[False].bits.copy()
    table[0] = first
    refused(replace(CODED[False], bits=table))


@pytest.mark.parametrize("group_size", [2**31, 2**62, 2**63, 10**30])
@pytest.mark.parametrize("plain", [False, True])
def test_groups_larger_than_any_tensor(plain, group_size):
    """One group, whose size no array has: right or refused."""
    coded = encode_tensor(np.array([1, 2, 3], np.int16), np.array([4], np.uint8), 3, None, (3,), plain)
    try:
        levels, _ = decode_tensor(coded, (3,), group_size, None)
    except ValueError:
        return
    assert levels.tolist() == [1, 2, 3]
