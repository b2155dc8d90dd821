"""Bit-packing: small integers to bytes and back, without a Python loop over entries.

Eight numbers of n bits fill n bytes exactly. So eight bytes are read as a 64-bit word, three steps of shifts move
the low n bits of its bytes next to each other, in pairs, fours and eights, and the word's first n bytes are kept.
Numbers wider than 8 bits are written as a plane of low bytes followed by the packed high parts. Levels of several
widths are written width by width, narrowest first, each in its own run of whole bytes; the order within a run is
the tensor's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_STORED_BITS = 15  # the widest level: a width takes 4 bits in a table of widths
Bytes = NDArray[np.uint8]
Numbers = NDArray[np.integer]
Levels = NDArray[Any]  # uint8 or int16
CHUNK = 2**16  # numbers that are processed at a time, where a copy of all would double the memory


def packed_bytes(count: int, width: int) -> int:
    """Bytes that `count` numbers of `width` bits take, 0 <= width <= MAX_STORED_BITS."""
    return (count * width + 7) // 8 if width <= 8 else count + packed_bytes(count, width - 8)


def pack(numbers: Numbers, width: int) -> Bytes:
    """Pack numbers in [0, 2^width), (N,) -> uint8 (packed_bytes(N, width),)."""
    if width == 0:
        return np.empty(0, np.uint8)
    if width > 8:
        return np.concatenate([(numbers & 255).astype(np.uint8), pack(numbers >> 8, width - 8)])
    if width == 8:
        return numbers.astype(np.uint8)
    words = np.zeros(-(-len(numbers) // 8), "<u8")
    words.view(np.uint8)[: len(numbers)] = numbers
    packed = np.empty((len(words), width), np.uint8)
    for start in range(0, len(words), CHUNK // 8):
        chunk = slice(start, start + CHUNK // 8)
        _squeeze(words[chunk], width)
        lanes = words[chunk].view(np.uint8).reshape(-1, 8)
        for place in range(width):
            packed[chunk, place] = lanes[:, place]
    return packed.reshape(-1)[: packed_bytes(len(numbers), width)]


def unpack(data: Bytes, count: int, width: int) -> Levels:
    """Undo `pack`: uint8 (packed_bytes(count, width),) -> (count,), uint8 up to 8 bits, else int16.

    Raises: ValueError when `data` is not of that length.
    """
    if len(data) != packed_bytes(count, width):
        raise ValueError(f"{len(data)} bytes, expected {packed_bytes(count, width)} for {count} x {width} bits")
    if width == 0:
        return np.zeros(count, np.uint8)
    if width > 8:
        high = unpack(data[count:], count, width - 8).astype(np.int16)
        return (high << 8) | data[:count]
    if width == 8:
        return data.copy()
    words = np.zeros(-(-count // 8), "<u8")
    packed = np.concatenate([data, np.zeros(len(words) * width - len(data), np.uint8)]).reshape(-1, width)
    for start in range(0, len(words), CHUNK // 8):
        chunk = slice(start, start + CHUNK // 8)
        lanes = words[chunk].view(np.uint8).reshape(-1, 8)
        for place in range(width):
            lanes[:, place] = packed[chunk, place]
        _spread(words[chunk], width)
    return words.view(np.uint8)[:count]


def _lanes(width: int) -> list[tuple[np.uint64, np.uint64, np.uint64]]:
    """The three steps that close the gaps above the low `width` bits of a word's bytes: lanes of 8, 16, 32 bits.

    For each step: mask of the left lane's bits, mask of where the right lane's bits go, and how far they move.
    """
    steps = []
    for lane in (8, 16, 32):
        used = width * lane // 8
        left = sum(((1 << used) - 1) << at for at in range(0, 64, 2 * lane))
        steps.append((np.uint64(left), np.uint64(left << used), np.uint64(lane - used)))
    return steps


def _squeeze(words: NDArray[np.uint64], width: int) -> None:
    """Move the low `width` bits of each byte into the low 8 * width bits of its word, in place."""
    for left, right, distance in _lanes(width):
        moved = (words >> distance) & right
        words &= left
        words |= moved


def _spread(words: NDArray[np.uint64], width: int) -> None:
    """Undo `_squeeze`."""
    for left, right, distance in reversed(_lanes(width)):
        moved = (words & right) << distance
        words &= left
        words |= moved


def counts_of(numbers: Numbers, symbols: int) -> NDArray[np.int64]:
    """How often each of 0..symbols-1 occurs, (symbols,)."""
    counts = np.zeros(symbols, np.int64)
    for start in range(0, len(numbers), CHUNK):  # bincount makes integers of 8 bytes
        counts += np.bincount(numbers[start : start + CHUNK], minlength=symbols)
    return counts


def entries_per_width(bits: Bytes, group_size: int, entries: int) -> dict[int, int]:
    """{width: entries in groups of that width}, narrow first."""
    size = group_size or entries
    groups = counts_of(bits, MAX_STORED_BITS + 1)
    missing = len(bits) * size - entries  # entries that the last group lacks
    return {
        int(width): int(groups[width]) * size - (missing if width == bits[-1] else 0)
        for width in np.flatnonzero(groups)
    }


def _rows(levels: Levels, group_size: int) -> tuple[NDArray[np.void], Levels]:
    """(N,) -> the full groups, each as one opaque value, (full,), and the rest; views of the memory of `levels`."""
    size = group_size or len(levels)
    full = len(levels) // size * size
    return levels[:full].view(np.dtype((np.void, size * levels.itemsize))), levels[full:]


def _groups_of(width: int, bits: Bytes, full: int) -> NDArray[np.intp]:
    """Indices of the full groups of a width; numpy takes by index three times as fast as by mask."""
    return np.flatnonzero(bits[:full] == width)


def split_widths(levels: Levels, bits: Bytes, group_size: int) -> Iterator[tuple[int, Levels]]:
    """The levels of each width by themselves: (width, its levels in their order), narrow first."""
    counts = entries_per_width(bits, group_size, len(levels))
    if len(counts) == 1:
        yield next(iter(counts)), levels
        return
    rows, tail = _rows(levels, group_size)
    for width in counts:
        run = rows.take(_groups_of(width, bits, len(rows))).view(levels.dtype)
        yield width, np.concatenate([run, tail]) if len(tail) and bits[-1] == width else run


def join_widths(runs: Iterable[tuple[int, Levels]], bits: Bytes, group_size: int, entries: int) -> Levels:
    """Undo `split_widths`; uint8 where no width is over 8, else int16."""
    levels: Levels = np.empty(entries, np.uint8 if bits.max() <= 8 else np.int16)
    for width, run in runs:
        run = run.astype(levels.dtype, copy=False)
        if len(run) == entries:
            return run
        rows, tail = _rows(levels, group_size)
        full = len(run)
        if len(tail) and bits[-1] == width:
            full -= len(tail)
            tail[:] = run[full:]
        rows[_groups_of(width, bits, len(rows))] = run[:full].view(rows.dtype)
    return levels


def packed_levels_bytes(bits: Bytes, group_size: int, entries: int) -> int:
    """Bytes that `pack_levels` gives."""
    return sum(packed_bytes(n, width) for width, n in entries_per_width(bits, group_size, entries).items())


def pack_levels(levels: Levels, bits: Bytes, group_size: int) -> Bytes:
    """Pack levels (N,) whose groups have the widths `bits` (G,): a run of whole bytes per width, narrow first."""
    return np.concatenate([pack(run, width) for width, run in split_widths(levels, bits, group_size)])


def unpack_levels(data: Bytes, bits: Bytes, group_size: int, entries: int) -> Levels:
    """Undo `pack_levels`: -> (entries,). Raises: ValueError when `data` has another length."""
    counts = entries_per_width(bits, group_size, entries)
    ends = list(accumulate(packed_bytes(count, width) for width, count in counts.items()))
    if len(data) != ends[-1]:
        raise ValueError(f"{len(data)} bytes of levels, expected {ends[-1]}")
    runs = (
        (width, unpack(data[end - packed_bytes(count, width) : end], count, width))
        for (width, count), end in zip(counts.items(), ends, strict=True)
    )
    return join_widths(runs, bits, group_size, entries)


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
