"""Levels and bits of one tensor <-> bytes, each bit-packed or entropy-coded, whichever is smaller.

The levels of each width are coded by themselves, with a model of their own, because a group's width says much about
the distribution of its levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..stored.groups import group_count
from ..stored.packing import (
    MAX_STORED_BITS,
    Bytes,
    Levels,
    bits_table_bytes,
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

PACKED, ANS = "packed", "ans"


@dataclass(frozen=True)
class Coded:
    """The bytes of one tensor; `models` begins with the model of the bits. coding: of the levels, of the bits."""

    levels: Bytes
    bits: Bytes
    models: Bytes
    coding: tuple[str, str]


def encode_tensor(levels: Levels, bits: Bytes, group_size: int, top: int | None, packed: bool = False) -> Coded:
    """Levels (N,) and bits (G,) as bytes; `packed` leaves the entropy coding out. top: see Stored.

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
        if len(models) + len(data) < packed_levels_bytes(bits, group_size, len(levels)):
            return Coded(_array(data), table, _array(table_model + models), (ANS, table_coding))
    bit_packed = np.concatenate([pack(run, width) for width, run in runs])
    return Coded(bit_packed, table, _array(table_model), (PACKED, table_coding))


def decode_tensor(coded: Coded, entries: int, group_size: int, top: int | None) -> tuple[Levels, Bytes]:
    """Undo `encode_tensor`: -> levels (N,), bits (G,). Raises: ValueError for bytes of no such tensor."""
    bits, models = _decode_bits(coded, group_count(entries, group_size))
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
