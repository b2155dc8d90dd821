"""A reader of stored networks in plain Python, written from docs/stored_file.md alone, without the package.

It reads both formats. It is slow, and for small files. Float32 arithmetic is numpy's, since Python has none.
"""

from __future__ import annotations

import ast
import json
import struct
import zlib
from bisect import bisect_right
from decimal import Decimal, localcontext
from functools import cache
from hashlib import blake2b
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

PAYLOADS = ["scales", "levels", "bits", "models", "floats"]
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
    entries = {name: _entry(data, 8 + length, entry["data_offsets"]) for name, entry in header.items()}
    index, payloads = {"diffq_exp.model/3": _parts, "diffq_exp.model/2": _old_parts}[metadata["format"]](
        entries, metadata
    )
    front = {name: _Front(payload) for name, payload in payloads.items()}
    tensors = {row[0]: _quantized(row, front) for row in index["tensors"]}
    plain = {row[0]: _plain(row, front["floats"]) for row in index["floats"] + index["buffers"]}
    assert all(front[name].data == b"" for name in PAYLOADS)
    return {
        "method": index["method"],
        "config": index["config"],
        "tied": index["tied"],
        "tensors": tensors,
        "plain": plain,
    }


def _entry(data: bytes, start: int, offsets: list[int]) -> bytes:
    return data[start + offsets[0] : start + offsets[1]]


def _parts(entries: dict[str, bytes], metadata: dict[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The index and the payloads of format 3."""
    front = _Front(entries["data"])
    assert front.take(8) == blake2b(front.data, digest_size=8).digest()
    lengths = [_number(front) for _ in range(6)]
    index, *payloads = [front.take(length) for length in lengths]
    assert not any(front.data)
    expand = zlib.decompressobj(-15, _dictionary())
    text = expand.decompress(index)
    assert expand.eof and not expand.unused_data
    return json.loads(text), dict(zip(PAYLOADS, payloads, strict=True))


def _number(front: _Front) -> int:
    number = place = 0
    while True:
        (byte,) = front.take(1)
        number |= (byte & 127) << place
        if byte < 128:
            return number
        place += 7


@cache
def _dictionary() -> bytes:
    """The text of the file that the page names."""
    tree = ast.parse((Path(__file__).parents[2] / "diffq_exp/storage/dictionary.py").read_text())
    (text,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    found = ast.literal_eval(text)
    assert blake2b(found, digest_size=16).hexdigest() == "c159a078819af5a590fa63bed82d212c"
    return found


def _old_parts(entries: dict[str, bytes], metadata: dict[str, str]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The index and the payloads of format 2."""
    own = metadata.pop("checksum")
    digest = blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name in sorted(entries):
        digest.update(name.encode() + entries[name])
    assert own == digest.hexdigest()
    expand = zlib.decompressobj()
    index = json.loads(expand.decompress(entries["index"]))
    assert not any(expand.unused_data)
    return {**index, "method": metadata["method"]}, {name: entries[name] for name in PAYLOADS}


def _plain(row: list[Any], front: _Front) -> bytes:
    """The raw bytes of a tensor that is not quantized."""
    _, shape, dtype, *value = row
    if not value:
        return front.take(prod(shape) * SIZES[dtype])
    if dtype == "bfloat16":  # the upper half of a float32
        raw = struct.pack("<f", value[0])[2:]
    else:
        raw = np.array(value[0], np.dtype(dtype).newbyteorder("<")).tobytes()
    return raw * prod(shape)


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
    data = front["levels"].take(levels_bytes)
    if levels_coding == "context":
        levels = _in_context(data, models.take(3), [*shape, 1, 1])
    else:
        levels = _levels(data, levels_coding, models, width_of, top)
    assert models.data == b""
    grid, _, per_channel = grid.partition("/")
    channels, numbers = shape[0] if per_channel else 1, 2 if grid == "minmax" else 1
    scales = np.frombuffer(front["scales"].take(4 * numbers * channels), "<f4").reshape(channels, numbers)
    values = _minmax if grid == "minmax" else _step
    of_entry = scales.repeat(entries // channels, 0).T
    return values(np.array(levels), np.array(width_of), of_entry, top).reshape(shape)


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
    (step,) = scales
    return (levels.astype(np.float32) - half) * step


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


# ---- coding in context ----------------------------------------------------------------------------------------


def _in_context(data: bytes, model: bytes, shape: list[int]) -> list[int]:
    """The levels of a tensor of one width, row-major."""
    rows, columns = shape[:2]
    places = prod(shape[2:])
    numbers = _Context(data).levels(*((columns, rows) if model[0] else (rows, columns)), places)
    cube = np.array(numbers).reshape(*((columns, rows) if model[0] else (rows, columns)), places)
    if model[0]:
        cube = cube.transpose(1, 0, 2)
    return [int(level) + model[1] + 256 * model[2] for level in cube.reshape(-1)]


def _rounded(value: Decimal) -> int:
    return int(value.to_integral_value())


@cache
def _squash(logit: int) -> int:
    with localcontext() as context:
        context.prec = 40
        share = 65536 / (1 + (-Decimal(logit) / 256).exp())
        return min(max(_rounded(share), 1), 65535)


@cache
def _stretch(part: int) -> int:
    with localcontext() as context:
        context.prec = 40
        share = (Decimal(part) + Decimal("0.5")) / 4096
        return min(max(_rounded(256 * (share / (1 - share)).ln()), -3071), 3071)


class _Context:
    """The arithmetic decoder, and what it has learned."""

    def __init__(self, data: bytes) -> None:
        self.data, self.low, self.high, self.code = iter(data), 0, 2**32 - 1, 0
        for _ in range(4):
            self.code = self.code * 256 + next(self.data, 0)
        self.share = [[[32768, 16384, 16384, 16384] for _ in range(1024)] for _ in range(8)]
        self.count = [[[0, 0, 0, 0] for _ in range(1024)] for _ in range(8)]
        self.weight = [[20000] * 8 for _ in range(16)]

    def bit(self, share: int) -> int:
        span = self.high - self.low
        middle = self.low + (span >> 16) * share + (((span & 65535) * share) >> 16)
        bit = int(self.code <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.low = (self.low << 8) & 0xFFFFFFFF
            self.high = ((self.high << 8) & 0xFFFFFFFF) | 255
            self.code = ((self.code << 8) & 0xFFFFFFFF) | next(self.data, 0)
        return bit

    def decision(self, contexts: list[int], slot: int, mixture: int) -> int:
        weight, logits = self.weight[mixture], []
        for table, cell in enumerate(contexts):
            seen = self.count[table][cell][slot]
            trust = round(256 * (seen + 0.5) / (seen + 2))
            logits.append((_stretch(self.share[table][cell][slot] >> 4) * trust) >> 8)
        total = sum(one * logit for one, logit in zip(weight, logits, strict=True)) >> 16
        share = _squash(min(max(total, -3071), 3071))
        bit = self.bit(share)
        for table, cell in enumerate(contexts):
            weight[table] += (((bit << 16) - share) * logits[table] * 8) >> 18
            seen = self.count[table][cell][slot]
            gap = bit * 65535 - self.share[table][cell][slot]
            self.share[table][cell][slot] += (gap * round(65536 / (seen + 1.6))) >> 16
            self.count[table][cell][slot] = min(seen + 1, 400)
        return bit

    def levels(self, rows: int, columns: int, places: int) -> list[int]:
        done: list[int] = []
        of_column, of_all = [0] * columns, 0
        for row in range(rows):
            of_row = 0
            for column in range(columns):
                of_kernel = 0
                for place in range(places):
                    seen = column * places + place
                    in_row = _rarity(4 * of_row + 1, 4 * seen + 9)
                    in_column = _rarity(8 * of_column[column] + 1, 8 * (row * places + place) + 17)
                    in_all = _rarity(8 * of_all + 1, 8 * (row * columns * places + seen) + 17)
                    before = min(abs(done[-1]), 2) if place else 0
                    over = min(abs(done[-3]), 2) if places == 9 and place >= 3 else 0
                    above = min(abs(done[-columns * places]), 2) if row else 0
                    few, kernel = min(of_row, 3), min(of_kernel, 3)
                    contexts = [
                        in_all,
                        in_row,
                        in_column,
                        in_row * 32 + in_column,
                        (((before * 3 + over) * 4 + kernel) * 4 + few) * 4 + min(of_column[column], 3),
                        min(place, 31) * 32 + in_column,
                        (above * 4 + few) * 32 + in_column,
                        (kernel * 4 + few) * 32 + in_all,
                    ]
                    size = 0
                    while size < 20:
                        slot = min(size, 3)
                        if not self.decision(contexts, slot, 4 * slot + (kernel if size else few)):
                            break
                        size += 1
                    if size == 20:
                        length = 0
                        while self.bit(32768):
                            length += 1
                        rest = 1
                        for _ in range(length):
                            rest = 2 * rest + self.bit(32768)
                        size += rest - 1
                    done.append(-size if size and self.bit(32768) else size)
                    of_row, of_all, of_kernel = of_row + size, of_all + size, of_kernel + size
                    of_column[column] += size
        return done


def _rarity(hits: int, trials: int) -> int:
    ratio, octaves = 16 * trials // hits, 0
    while ratio >= 32:
        ratio //= 2
        octaves += 2
    return min(octaves + (ratio >= 23), 31)
