"""Bit-packing: small integers to bytes and back, without a Python loop over entries.

Eight numbers of n bits fill n bytes exactly. So a sequence is cut into eights, each eight is shifted into one
64-bit word, and the word's first n bytes are kept; numbers wider than 8 bits are written as a plane of low bytes
followed by the packed high parts. Levels of several widths are written width by width, narrowest first, each in
its own run of whole bytes; the order within a run is the tensor's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.integer]


def packed_bytes(count: int, width: int) -> int:
    """Bytes that `count` numbers of `width` bits take, 0 <= width <= 15."""
    return (count * width + 7) // 8 if width <= 8 else count + packed_bytes(count, width - 8)


def pack(numbers: Numbers, width: int) -> Bytes:
    """Pack numbers in [0, 2^width), (N,) -> uint8 (packed_bytes(N, width),)."""
    if width == 0:
        return np.empty(0, np.uint8)
    if width > 8:
        return np.concatenate([(numbers & 255).astype(np.uint8), pack(numbers >> 8, width - 8)])
    eights = np.zeros((-(-len(numbers) // 8), 8), np.uint8)
    eights.reshape(-1)[: len(numbers)] = numbers
    words = np.zeros(len(eights), "<u8")
    for place in range(8):
        words |= eights[:, place].astype("<u8") << np.uint64(width * place)
    used = words.view(np.uint8).reshape(-1, 8)[:, :width]
    return np.ascontiguousarray(used).reshape(-1)[: packed_bytes(len(numbers), width)]


def unpack(data: Bytes, count: int, width: int) -> NDArray[np.int16]:
    """Undo `pack`: uint8 (packed_bytes(count, width),) -> int16 (count,).

    Raises: ValueError when `data` is not of that length.
    """
    if len(data) != packed_bytes(count, width):
        raise ValueError(f"{len(data)} bytes, expected {packed_bytes(count, width)} for {count} x {width} bits")
    if width == 0:
        return np.zeros(count, np.int16)
    if width > 8:
        high = unpack(data[count:], count, width - 8)
        return (high << 8) | data[:count].astype(np.int16)
    used = np.zeros((-(-count // 8), 8), np.uint8)
    padded = np.zeros(len(used) * width, np.uint8)
    padded[: len(data)] = data
    used[:, :width] = padded.reshape(-1, width)
    words = used.view("<u8").reshape(-1)
    numbers = np.empty((len(words), 8), np.int16)
    for place in range(8):
        numbers[:, place] = (words >> np.uint64(width * place)) & np.uint64(2**width - 1)
    return numbers.reshape(-1)[:count]


def group_lengths(groups: int, group_size: int, entries: int) -> NDArray[np.int64]:
    """Entries of each group, int64 (G,): all `group_size` (0: one group of all) but maybe the last."""
    size = group_size or entries
    lengths = np.full(groups, size, np.int64)
    lengths[-1] = entries - size * (groups - 1)
    return lengths


def packed_levels_bytes(bits: Bytes, group_size: int, entries: int) -> int:
    """Bytes that `pack_levels` gives."""
    per_width = np.bincount(bits, group_lengths(len(bits), group_size, entries))
    return sum(packed_bytes(int(count), width) for width, count in enumerate(per_width))


def pack_levels(levels: Numbers, bits: Bytes, group_size: int) -> Bytes:
    """Pack levels (N,) whose groups have the widths `bits` (G,): a run of whole bytes per width, narrow first."""
    widths = np.unique(bits)
    if len(widths) == 1:
        return pack(levels, int(widths[0]))
    per_entry = np.repeat(bits, group_lengths(len(bits), group_size, len(levels)))
    return np.concatenate([pack(levels[per_entry == width], int(width)) for width in widths])


def unpack_levels(data: Bytes, bits: Bytes, group_size: int, entries: int) -> NDArray[np.int16]:
    """Undo `pack_levels`: -> int16 (entries,). Raises: ValueError when `data` has another length."""
    expected = packed_levels_bytes(bits, group_size, entries)
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes of levels, expected {expected}")
    widths = np.unique(bits)
    if len(widths) == 1:
        return unpack(data, entries, int(widths[0]))
    per_entry = np.repeat(bits, group_lengths(len(bits), group_size, entries))
    levels = np.empty(entries, np.int16)
    start = 0
    for width in widths:
        where = per_entry == width
        count = int(where.sum())
        stop = start + packed_bytes(count, int(width))
        levels[where] = unpack(data[start:stop], count, int(width))
        start = stop
    return levels


def pack_bits(bits: Bytes) -> Bytes:
    """Pack a table of widths (G,), each 0..15: a byte of (narrowest << 4 | width of an entry), then the entries."""
    low, high = int(bits.min()), int(bits.max())
    width = (high - low).bit_length()
    return np.concatenate([np.array([low << 4 | width], np.uint8), pack(bits - low, width)])


def unpack_bits(data: Bytes, groups: int) -> Bytes:
    """Undo `pack_bits`: -> uint8 (groups,). Raises: ValueError for another length or a width over 15."""
    if len(data) == 0:
        raise ValueError("an empty table of bits")
    low, width = int(data[0]) >> 4, int(data[0]) & 15
    if width > 4:
        raise ValueError(f"a table of bits with entries of {width} bits; at most 4 are needed")
    bits = unpack(data[1:], groups, width) + low
    if bits.max() > 15:
        raise ValueError(f"a table of bits that holds {bits.max()}; at most 15 are allowed")
    return bits.astype(np.uint8)


def bits_table_bytes(bits: Bytes) -> int:
    """Bytes that `pack_bits` gives."""
    return 1 + packed_bytes(len(bits), int(int(bits.max()) - int(bits.min())).bit_length())
