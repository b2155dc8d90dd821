"""Entropy coding of small integers: asymmetric numeral systems under a model of a few bytes.

A model gives the probability of each symbol 0..S-1 by *knots*, a byte each, at even distances over the alphabet. A
knot says how many sixteenths of an octave its symbol is below the most probable symbol. Between knots the logarithm
of the probability is linear. With a knot per symbol the model is a table. With few knots it is a smooth curve,
which for wide alphabets is much shorter than a table, and for bell-shaped weights as good. Frequencies are computed
from knots in integer arithmetic only, so that every machine decodes alike. Only the encoder fits knots, in floating
point.

The coder itself is that of the `constriction` library.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from ..stored.packing import CHUNK, Bytes, Levels, counts_of
from .spline import fit

Knots = NDArray[np.uint8]
Counts = NDArray[np.int64]
PER_OCTAVE = 16  # steps of a knot in a factor of two
FINE = 256  # parts of an octave between knots
KNOTS = (0, 2, 3, 5, 9, 17, 33, 65)  # how many a curve may have; 0: all symbols are equally probable
MOST_IN_TABLE = 256  # symbols of an alphabet that may have a knot each
SYMBOLS_PER_ENTRY = 4  # of an alphabet at most, for a run to have knots: making a model takes time by its symbols
RAREST = 2.0**-16  # of a symbol that never occurs, per occurrence of another: a knot reaches 255 / 16 octaves down
WORTH_A_SEARCH = 0.002  # a table of less than this share of the coded bytes is used without a search


@cache
def _octave() -> Counts:
    """2^36 times 2^(-i/256), i in 0..255, rounded; none is near a half, so that every machine rounds alike."""
    return np.rint(2.0**36 * 2.0 ** (-np.arange(FINE) / FINE)).astype(np.int64)


def frequencies(knots: Knots, symbols: int) -> Counts:
    """Relative frequencies of the symbols, whole numbers of at least 1, (S,)."""
    if len(knots) < 2:
        return np.ones(symbols, np.int64)
    cells, last = len(knots) - 1, symbols - 1
    place = np.arange(symbols, dtype=np.int64) * cells
    cell = np.minimum(place // last, cells - 1)
    right = place - cell * last  # distance from the knot at the left, in parts of `last`
    knots64 = knots.astype(np.int64)
    below = knots64[cell] * (last - right) + knots64[cell + 1] * right
    fine = (below * (FINE // PER_OCTAVE) + last // 2) // last
    return np.maximum(_octave()[fine % FINE] >> (fine // FINE), 1)


def bits_of(counts: Counts, knots: Knots) -> float:
    """Bits that symbols with these `counts` (S,) take under a model, without the model."""
    weights = frequencies(knots, len(counts))
    return float((counts * -np.log2(weights / weights.sum())).sum())


def model_of(counts: Counts) -> Knots:
    """The knots with which symbols that occur this often, (S,), and the knots themselves, take the fewest bytes."""
    symbols, no_knots = len(counts), np.empty(0, np.uint8)
    if not _may_have_knots(int(counts.sum()), symbols):
        return no_knots
    if symbols <= MOST_IN_TABLE:
        table = _in_steps(np.log2(np.maximum(counts, RAREST)))
        if symbols < WORTH_A_SEARCH * bits_of(counts, table) / 8:
            return table
    best, fewest = no_knots, bits_of(counts, no_knots)
    for number in (*KNOTS[1:], symbols):
        if number < symbols or number == symbols <= MOST_IN_TABLE:
            knots = table if number == symbols else _in_steps(fit(counts, number))
            bits = bits_of(counts, knots) + 8 * number
            if bits < fewest:
                best, fewest = knots, bits
    return best


def _in_steps(log2: NDArray[np.float64]) -> Knots:
    """Logarithms as bytes: sixteenths of an octave below the highest."""
    return np.rint(np.minimum((log2.max() - log2) * PER_OCTAVE, 255)).astype(np.uint8)


def pack_model(knots: Knots, symbols: int) -> bytes:
    """A byte that says how many knots there are, then the knots."""
    kind = len(KNOTS) if len(knots) == symbols else KNOTS.index(len(knots))
    return bytes([kind]) + knots.tobytes()


def unpack_model(data: Bytes, symbols: int) -> tuple[Knots, Bytes]:
    """The knots that `data` begins with, and the rest of it. Raises: ValueError when there are none."""
    if len(data) == 0 or data[0] > len(KNOTS) or (data[0] == len(KNOTS) and symbols > MOST_IN_TABLE):
        raise ValueError("a model of levels is missing, or of an unknown kind")
    number = symbols if data[0] == len(KNOTS) else KNOTS[data[0]]
    if number > symbols or len(data) < 1 + number:
        raise ValueError(f"a model of {symbols} symbols has {len(data) - 1} knots left of {number}")
    return data[1 : 1 + number], data[1 + number :]


def encode(runs: Sequence[tuple[Levels, int]]) -> tuple[bytes, bytes]:
    """Runs of symbols, each with the size of its alphabet -> bytes of their models, bytes of the symbols."""
    knots = [model_of(counts_of(numbers, symbols)) for numbers, symbols in runs]
    coder = stream.stack.AnsCoder()  # a stack: the last symbol goes in first
    for (numbers, symbols), own in zip(reversed(runs), reversed(knots), strict=True):
        model = _coder_model(own.tobytes(), symbols)
        for start in reversed(range(0, len(numbers), CHUNK)):
            coder.encode_reverse(numbers[start : start + CHUNK].astype(np.int32), model)
    models = b"".join(pack_model(own, symbols) for (_, symbols), own in zip(runs, knots, strict=True))
    return models, coder.get_compressed().astype("<u4").tobytes()


def decode(models: Bytes, data: Bytes, runs: Sequence[tuple[int, int]]) -> list[Levels]:
    """Undo `encode`, given how many symbols each run has, and the size of its alphabet.

    Raises: ValueError when models or data are not those of such runs.
    """
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes of coded levels, which is no multiple of 4")
    coder = stream.stack.AnsCoder(np.frombuffer(data.tobytes(), "<u4").astype(np.uint32, copy=False))
    decoded: list[Levels] = []
    for count, symbols in runs:
        knots, models = unpack_model(models, symbols)
        if len(knots) and not _may_have_knots(count, symbols):
            raise ValueError(f"a model of {symbols} levels for {count} entries")
        model = _coder_model(knots.tobytes(), symbols)
        numbers: Levels = np.empty(count, np.uint8 if symbols <= 256 else np.int16)
        for start in range(0, count, CHUNK):
            stop = min(start + CHUNK, count)
            numbers[start:stop] = coder.decode(model, stop - start)
        decoded.append(numbers)
    if len(models) or not coder.is_empty():
        raise ValueError("its coded levels do not end where their number says")
    return decoded


@lru_cache(maxsize=64)
def _coder_model(knots: bytes, symbols: int) -> object:
    if not knots:
        return stream.model.Uniform(symbols)
    weights = frequencies(np.frombuffer(knots, np.uint8), symbols)
    return stream.model.Categorical(weights.astype(np.float64), perfect=False)


def _may_have_knots(count: int, symbols: int) -> bool:
    """Whether a run is long enough for more than the uniform model."""
    return SYMBOLS_PER_ENTRY * count >= symbols
