"""Levels and bits of one tensor <-> bytes: bit-packed, entropy-coded or coded in context, whichever is smallest.

The levels of each width are coded by themselves, with a model of their own, because a group's width says much about
the distribution of its levels. Where a tensor has one width, the neighbours of a level say more: its distance from
the most frequent level is coded in their context (contexts.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..stored.groups import group_count
from ..stored.packing import (
    MAX_STORED_BITS,
    Bytes,
    Levels,
    bits_table_bytes,
    counts_of,
    entries_per_width,
    join_widths,
    pack,
    pack_bits,
    packed_levels_bytes,
    split_widths,
    unpack_bits,
    unpack_levels,
)
from . import entropy
from .layout import ANS, CONTEXT, PACKED

WIDE = 3.0  # mean distance from the most frequent level, beyond which coding in context gains little and takes long


@dataclass(frozen=True)
class Coded:
    """The bytes of one tensor; `models` begins with the model of the bits. coding: of the levels, of the bits."""

    levels: Bytes
    bits: Bytes
    models: Bytes
    coding: tuple[str, str]


def encode_tensor(
    levels: Levels, bits: Bytes, group_size: int, top: int | None, shape: Sequence[int], packed: bool = False
) -> Coded:
    """Levels (N,) of a tensor of `shape` and bits (G,) as bytes; `packed` only packs them. top: see Stored.

    Raises: ValueError for levels that their groups' bits do not hold.
    """
    if bits.max() > MAX_STORED_BITS:
        raise ValueError(f"a group of {bits.max()} bits; at most {MAX_STORED_BITS} can be stored")
    table, table_model, table_coding = _encode_bits(bits, packed)
    runs = list(split_widths(levels, bits, group_size))
    for width, run in runs:
        if run.min() < 0 or run.max() >= symbols_of(width, top):
            raise ValueError(f"levels from {run.min()} to {run.max()} in groups of {width} bits")
    if not packed:
        models, data = entropy.encode([(run, symbols_of(width, top)) for width, run in runs if width])
        coding, in_context = ANS, _encode_context(levels, shape) if len(bits) == 1 and bits[0] else None
        if in_context is not None and sum(map(len, in_context)) < len(models) + len(data):
            coding, (models, data) = CONTEXT, in_context
        if len(models) + len(data) < packed_levels_bytes(bits, group_size, len(levels)):
            return Coded(_array(data), table, _array(table_model + models), (coding, table_coding))
    bit_packed = np.concatenate([pack(run, width) for width, run in runs])
    return Coded(bit_packed, table, _array(table_model), (PACKED, table_coding))


def decode_tensor(coded: Coded, shape: Sequence[int], group_size: int, top: int | None) -> tuple[Levels, Bytes]:
    """Undo `encode_tensor`: -> levels (N,), bits (G,). Raises: ValueError for bytes of no such tensor."""
    entries = math.prod(shape)
    bits, models = _decode_bits(coded, group_count(entries, group_size))
    if coded.coding[0] == CONTEXT:
        if len(bits) != 1 or not bits[0]:
            raise ValueError(f"levels coded in context, in {len(bits)} groups of at most {bits.max()} bits")
        return _decode_context(models, coded.levels, shape, symbols_of(int(bits[0]), top)), bits
    if coded.coding[0] == ANS:
        counts = {width: n for width, n in entries_per_width(bits, group_size, entries).items() if width}
        runs = entropy.decode(models, coded.levels, [(n, symbols_of(width, top)) for width, n in counts.items()])
        widths = dict(zip(counts, runs, strict=True))
        if bits.min() == 0:
            widths[0] = np.zeros(entries - sum(counts.values()), np.uint8)
        return join_widths(widths.items(), bits, group_size, entries), bits
    if len(models):
        raise ValueError(f"{len(models)} bytes of models are left over")
    levels = unpack_levels(coded.levels, bits, group_size, entries)
    if top is not None and levels.max() > top:
        raise ValueError(f"a level of {levels.max()}, above the highest, {top}")
    return levels, bits


def symbols_of(width: int, top: int | None) -> int:
    """How many levels groups of a width have. Raises: ValueError when the width does not hold `top`."""
    if top is None or width == 0:
        return int(2**width)
    if top >= 2**width:
        raise ValueError(f"a highest level of {top} in groups of {width} bits")
    return top + 1


def _cube(shape: Sequence[int]) -> tuple[int, int, int]:
    """(rows, columns, places) of a tensor: its first and its second dimension, and all others."""
    rows, columns, *places = (*shape, 1, 1)[: max(len(shape), 2)]
    return rows, columns, math.prod(places)


def _encode_context(levels: Levels, shape: Sequence[int]) -> tuple[bytes, bytes] | None:
    """The model and the coded levels; None where the levels are too wide.

    The model is a byte, 0 for row by row and 1 for column by column, and the most frequent level in two bytes.
    """
    from . import contexts  # numba takes its time

    middle = int(counts_of(levels, int(levels.max()) + 1).argmax())
    cube = (levels.astype(np.int16) - middle).reshape(_cube(shape))
    if np.abs(cube).mean() > WIDE:
        return None
    orders = [cube] if 1 in cube.shape[:2] else [cube, cube.transpose(1, 0, 2)]
    coded = [contexts.encode(order) for order in orders]
    best = min(range(len(coded)), key=lambda order: len(coded[order]))
    return bytes([best]) + middle.to_bytes(2, "little"), coded[best]


def _decode_context(model: Bytes, data: Bytes, shape: Sequence[int], symbols: int) -> Levels:
    """Undo `_encode_context`, for an alphabet of so many symbols."""
    from . import contexts

    if len(model) != 3 or model[0] > 1:
        raise ValueError(f"{len(model)} bytes of a model of levels in context")
    rows, columns, places = _cube(shape)
    if model[0]:
        cube = contexts.decode(data, (columns, rows, places), symbols).transpose(1, 0, 2)
    else:
        cube = contexts.decode(data, (rows, columns, places), symbols)
    levels: Levels = cube.reshape(-1).astype(np.int32) + int.from_bytes(model[1:].tobytes(), "little")
    if levels.min() < 0 or levels.max() >= symbols:
        raise ValueError(f"levels from {levels.min()} to {levels.max()}, of {symbols}")
    return levels.astype(np.uint8 if symbols <= 256 else np.int16)


def _encode_bits(bits: Bytes, packed: bool) -> tuple[Bytes, bytes, str]:
    """-> the table, the model of it, its coding. A coded table begins with a byte: narrowest << 4 | widest."""
    low, high = int(bits.min()), int(bits.max())
    if not packed and low < high:
        model, data = entropy.encode([(bits - low, high - low + 1)])
        if 1 + len(model) + len(data) < bits_table_bytes(bits):
            return _array(bytes([low << 4 | high]) + data), model, ANS
    return pack_bits(bits), b"", PACKED


def _decode_bits(coded: Coded, groups: int) -> tuple[Bytes, Bytes]:
    """-> bits (G,), and the rest of the models."""
    if coded.coding[1] == PACKED:
        return unpack_bits(coded.bits, groups), coded.models
    if len(coded.bits) == 0 or not (low := int(coded.bits[0]) >> 4) < (high := int(coded.bits[0]) & 15):
        raise ValueError("a coded table of bits without its narrowest and widest")
    symbols = high - low + 1
    rest = entropy.unpack_model(coded.models, symbols)[1]
    model = coded.models[: len(coded.models) - len(rest)]
    bits = entropy.decode(model, coded.bits[1:], [(groups, symbols)])[0]
    return (bits + low).astype(np.uint8), rest


def _array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)
