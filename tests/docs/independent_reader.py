"""A reader of stored networks in plain Python, written from docs/stored_file.md alone, without the package.

It is slow, and for small files. Float32 arithmetic is numpy's, since Python has none.
"""

from __future__ import annotations

import json
import struct
import zlib
from bisect import bisect_right
from decimal import Decimal, localcontext
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from math import prod
from typing import Any

import numpy as np

KINDS = ["scales", "levels", "bits", "models", "floats", "index"]
KNOTS = [0, 2, 3, 5, 9, 17, 33, 65]
SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip


def read_file(data: bytes) -> dict[str, Any]:
    """-> method, config, tied, and per name: values (float32) of quantized tensors, raw bytes of the others."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    payloads = {name: _payload(data, 8 + length, header[name]["data_offsets"]) for name in KINDS}
    assert metadata["format"] == "diffq_exp.model/2"
    assert metadata.pop("checksum") == _checksum(metadata, payloads)
    index = json.loads(zlib.decompressobj().decompress(payloads["index"]))
    front = {name: _Front(payload) for name, payload in payloads.items()}
    tensors = {row[0]: _quantized(row, front) for row in index["tensors"]}
    plain = {}
    for name, shape, dtype in index["floats"] + index["buffers"]:
        plain[name] = front["floats"].take(prod(shape) * SIZES[dtype])
    assert all(front[name].data == b"" for name in KINDS if name != "index")
    return {
        "method": metadata["method"],
        "config": index["config"],
        "tied": index["tied"],
        "tensors": tensors,
        "plain": plain,
    }


def _payload(data: bytes, start: int, offsets: list[int]) -> bytes:
    return data[start + offsets[0] : start + offsets[1]]


def _checksum(metadata: dict[str, str], payloads: dict[str, bytes]) -> str:
    digest = blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name in sorted(payloads):
        digest.update(name.encode() + payloads[name])
    return digest.hexdigest()


class _Front:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count
        return taken


# ---- a quantized tensor ---------------------------------------------------------------------------------------


def _quantized(row: list[Any], front: dict[str, _Front]) -> np.ndarray:
    _, shape, _, grid, group_size, top, levels_coding, bits_coding, levels_bytes, bits_bytes, models_bytes = row
    entries = prod(shape)
    size = group_size or entries
    models = _Front(front["models"].take(models_bytes))
    bits = _bits(front["bits"].take(bits_bytes), bits_coding, models, -(-entries // size))
    width_of = [bits[entry // size] for entry in range(entries)]
    levels = _levels(front["levels"].take(levels_bytes), levels_coding, models, width_of, top)
    assert models.data == b""
    scales = np.frombuffer(front["scales"].take(8 if grid == "minmax" else 4), "<f4")
    values = _minmax if grid == "minmax" else _step
    return values(np.array(levels), np.array(width_of), scales, top).reshape(shape)


def _bits(data: bytes, coding: str, models: _Front, groups: int) -> list[int]:
    low, other = data[0] >> 4, data[0] & 15
    if coding == "packed":
        return [low + number for number in _unpack(data[1:], groups, other)]
    (numbers,) = _decode(data[1:], models, [(groups, other - low + 1)])
    return [low + number for number in numbers]


def _levels(data: bytes, coding: str, models: _Front, width_of: list[int], top: int | None) -> list[int]:
    counts = {width: width_of.count(width) for width in sorted(set(width_of)) if width}
    if coding == "ans":
        runs = _decode(data, models, [(n, 2**width if top is None else top + 1) for width, n in counts.items()])
        by_width = dict(zip(counts, map(iter, runs), strict=True))
    else:
        front = _Front(data)
        by_width = {
            width: iter(_unpack(front.take(_packed_bytes(count, width)), count, width))
            for width, count in counts.items()
        }
        assert front.data == b""
    return [next(by_width[width]) if width else 0 for width in width_of]


def _minmax(levels: np.ndarray, widths: np.ndarray, scales: np.ndarray, top: int | None) -> np.ndarray:
    low, high = scales
    tops = np.where(widths, 2.0**widths - 1 if top is None else top, 1).astype(np.float32)
    empty = np.clip(np.float32(0), low, high)
    return np.where(widths, levels.astype(np.float32) / tops * (high - low) + low, empty)


def _step(levels: np.ndarray, widths: np.ndarray, scales: np.ndarray, top: int | None) -> np.ndarray:
    half = np.where(widths, 2.0 ** (widths - 1), 0).astype(np.float32)
    return (levels.astype(np.float32) - half) * scales[0]


# ---- bit-packing ----------------------------------------------------------------------------------------------


def _packed_bytes(count: int, width: int) -> int:
    return (count * width + 7) // 8 if width <= 8 else count + _packed_bytes(count, width - 8)


def _unpack(data: bytes, count: int, width: int) -> list[int]:
    if width > 8:
        high = _unpack(data[count:], count, width - 8)
        return [256 * above + below for below, above in zip(data, high, strict=False)]
    stream = int.from_bytes(data, "little")
    return [stream >> (place * width) & (2**width - 1) for place in range(count)]


# ---- asymmetric numeral systems -------------------------------------------------------------------------------


def _decode(data: bytes, models: _Front, runs: list[tuple[int, int]]) -> list[list[int]]:
    words = list(struct.unpack(f"<{len(data) // 4}I", data))
    state = 0
    while words and state < 2**32:
        state = state * 2**32 + words.pop()
    decoded = []
    for count, symbols in runs:
        edges = _edges(models, symbols)
        numbers = []
        for _ in range(count):
            place = state % 2**24
            symbol = bisect_right(edges, place) - 1
            state = (state >> 24) * (edges[symbol + 1] - edges[symbol]) + place - edges[symbol]
            if state < 2**32 and words:
                state = state * 2**32 + words.pop()
            numbers.append(symbol)
        decoded.append(numbers)
    assert state == 0 and not words
    return decoded


def _edges(models: _Front, symbols: int) -> list[int]:
    """symbols + 1 edges in [0, 2^24]; a symbol's share is the difference of two."""
    kind = models.take(1)[0]
    knots = models.take(symbols if kind == 8 else KNOTS[kind])
    if not knots:
        return [symbol * (2**24 // symbols) for symbol in range(symbols)] + [2**24]
    frequencies = _frequencies(knots, symbols)
    scale = (2.0**24 - symbols) / float(sum(frequencies))
    below = accumulate(frequencies[:-1], initial=0)
    return [int(float(total) * scale) + symbol for symbol, total in enumerate(below)] + [2**24]


def _frequencies(knots: bytes, symbols: int) -> list[int]:
    cells, last = len(knots) - 1, symbols - 1
    frequencies = []
    for symbol in range(symbols):
        cell = min(symbol * cells // last, cells - 1)
        right = symbol * cells - cell * last
        below = knots[cell] * (last - right) + knots[cell + 1] * right
        fine = (16 * below + last // 2) // last
        frequencies.append(max(_octave(fine % 256) >> (fine // 256), 1))
    return frequencies


@cache
def _octave(part: int) -> int:
    """2^(36 - part/256), rounded."""
    with localcontext() as context:
        context.prec = 40
        return int(Decimal(2) ** (36 - Decimal(part) / 256) + Decimal("0.5"))
