"""Context coding of a weight's levels: the probability of each follows from its neighbours.

Weights trained with a penalty on their bytes are sparse in patterns: whole rows (output channels), columns (input
channels) and places of a kernel are zero. One distribution cannot say so, and a table for each row costs more than
it saves in a small network. So the coder learns while it codes, and the decoder learns the same.

    level v    ->  decisions |v| > 0? |v| > 1? ... (at most UNARY, then an exponential Golomb code), and v < 0?
    decision   ->  a probability from each of TABLES adaptive tables, which look it up by a context of their own
               ->  mixed in the logistic domain, by weights that are learned too (Mahoney 2005, the PAQ coders)
               ->  a binary arithmetic coder with an interval of 32 bits

All of it is integer arithmetic, so that every machine decodes alike. A tensor is (rows, columns, places): (out, in,
height * width) of a convolution. All compiled functions stand in this file, for numba keeps them by its date.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

TABLES, CELLS, SLOTS = 8, 1024, 4  # entries of a table; decisions that have entries of their own
UNARY = 20  # decisions of a level before the rest of it is written in plain bits
SCALE = 256  # of logits: 1.0 is the integer 256
HIGHEST = 12 * SCALE - 1  # logit: a probability of 6e-6
LIMIT = 400  # decisions that an entry remembers
RATE, RATE_SHIFT = 8, 18  # of learning the weights of the mixture
FIRST_WEIGHT = 20_000  # of 2^16
HALF, ONE, WORD = 2**15, 2**16, 2**32 - 1

_logits = np.arange(-HIGHEST, HIGHEST + 1) / SCALE
_shares = (np.arange(4096) + 0.5) / 4096
_seen = np.arange(LIMIT + 1)
Constants = namedtuple("Constants", "squash stretch step trust")
CONSTANTS = Constants(
    squash=np.clip(np.rint(ONE / (1 + np.exp(-_logits))), 1, ONE - 1).astype(np.int64),  # logit -> probability
    stretch=np.clip(np.rint(SCALE * np.log(_shares / (1 - _shares))), -HIGHEST, HIGHEST).astype(np.int64),  # back
    step=np.rint(ONE / (_seen + 1.6)).astype(np.int64),  # how far an entry moves towards a decision
    trust=np.rint(SCALE * (_seen + 0.5) / (_seen + 2.0)).astype(np.int64),  # in an entry that saw so many
)
Model = namedtuple("Model", "share count weight context logit")
Coder = namedtuple("Coder", "data state decoding")  # state: low, high, code, place in data
LOW, HIGH, CODE, PLACE = range(4)


def compiled(function: Any) -> Any:
    """Compiled at its first call, and kept where numba has a place to write to."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:
        return njit(function)


# ---- the arithmetic coder: every function writes its argument, or reads and returns it ---------------------------


@compiled
def _next_byte(coder: Any) -> None:
    place = coder.state[PLACE]
    coder.state[CODE] = ((coder.state[CODE] << 8) & WORD) | (coder.data[place] if place < len(coder.data) else 0)
    coder.state[PLACE] = place + 1


@compiled
def _put_byte(coder: Any, byte: int) -> None:
    place = coder.state[PLACE]
    if place < len(coder.data):
        coder.data[place] = byte
    coder.state[PLACE] = place + 1


@compiled
def _bit(coder: Any, bit: int, share: int) -> int:
    """One bit. share: the probability of a 1, of 2^16."""
    state = coder.state
    span = state[HIGH] - state[LOW]
    middle = state[LOW] + (span >> 16) * share + (((span & 0xFFFF) * share) >> 16)
    if coder.decoding:
        bit = 1 if state[CODE] <= middle else 0
    if bit:
        state[HIGH] = middle
    else:
        state[LOW] = middle + 1
    while ((state[LOW] ^ state[HIGH]) >> 24) == 0:
        if coder.decoding:
            _next_byte(coder)
        else:
            _put_byte(coder, state[HIGH] >> 24)
        state[LOW] = (state[LOW] << 8) & WORD
        state[HIGH] = ((state[HIGH] << 8) & WORD) | 255
    return bit


@compiled
def _golomb(coder: Any, number: int) -> int:
    """A number >= 0 as an exponential Golomb code; -1: what is read does not end."""
    length = 0
    while _bit(coder, 1 if (number + 1) >> (length + 1) else 0, HALF):
        length += 1
        if length > 15:
            return -1
    read = 1
    for place in range(length - 1, -1, -1):
        read = (read << 1) | _bit(coder, ((number + 1) >> place) & 1, HALF)
    return read - 1


@compiled
def _finish(coder: Any) -> None:
    """Write the fewest bytes which, followed by zeros, lie inside the interval."""
    for length in range(5):
        unit = 1 << (32 - 8 * length)
        code = -(-coder.state[LOW] // unit) * unit
        if code <= coder.state[HIGH]:
            for place in range(length):
                _put_byte(coder, (code >> (24 - 8 * place)) & 255)
            return


# ---- the model ---------------------------------------------------------------------------------------------------


@compiled
def _rarity(hits: int, trials: int) -> int:
    """About 2 log2(trials / hits), 0 to 31; hits > 0."""
    ratio, octaves = (trials << 4) // hits, 0
    while ratio >= 32:
        ratio >>= 1
        octaves += 2
    return min(octaves + (1 if ratio >= 23 else 0), 31)


@compiled
def _decision(coder: Any, model: Any, constants: Any, bit: int, slot: int, mixture: int) -> int:
    """One decision: mix what the tables say, code it, and learn from it."""
    total = 0
    for table in range(TABLES):
        cell = model.context[table]
        logit = constants.stretch[model.share[table, cell, slot] >> 4]
        model.logit[table] = (logit * constants.trust[model.count[table, cell, slot]]) >> 8
        total += model.weight[mixture, table] * model.logit[table]
    share = constants.squash[min(max(total >> 16, -HIGHEST), HIGHEST) + HIGHEST]
    bit = _bit(coder, bit, share)
    error = (bit << 16) - share
    for table in range(TABLES):
        cell = model.context[table]
        model.weight[mixture, table] += (error * model.logit[table] * RATE) >> RATE_SHIFT
        seen = model.count[table, cell, slot]
        gap = bit * (ONE - 1) - model.share[table, cell, slot]
        model.share[table, cell, slot] += (gap * constants.step[seen]) >> 16
        model.count[table, cell, slot] = min(seen + 1, LIMIT)
    return bit


@compiled
def _level(coder: Any, model: Any, constants: Any, level: int, few: int, kernel: int, largest: int) -> int:
    """One level, in the context that the model has; beyond `largest`: what is read is no such level."""
    size, wanted = 0, abs(level)
    while size < UNARY:
        slot = min(size, SLOTS - 1)
        mixture = 4 * slot + (kernel if size else few)
        if not _decision(coder, model, constants, 1 if wanted > size else 0, slot, mixture):
            break
        size += 1
    if size == UNARY:
        rest = _golomb(coder, wanted - UNARY)
        size = UNARY + rest if rest >= 0 else largest + 1
    return -size if size and _bit(coder, 1 if level < 0 else 0, HALF) else size


@compiled
def _look(
    model: Any, levels: Any, row: int, column: int, place: int, row_sum: int, sums: Any, all_sum: int
) -> None:
    """Set the contexts of a level: sums of sizes so far in its row, column and tensor, and its neighbours."""
    _, columns, places = levels.shape
    kernel_sum, column_sum = sums[column, 0], sums[column, 1]
    seen = column * places + place
    in_row = _rarity(4 * row_sum + 1, 4 * seen + 9)
    in_column = _rarity(8 * column_sum + 1, 8 * (row * places + place) + 17)
    in_all = _rarity(8 * all_sum + 1, 8 * (row * columns * places + seen) + 17)
    before = min(abs(levels[row, column, place - 1]), 2) if place else 0
    over = min(abs(levels[row, column, place - 3]), 2) if places == 9 and place >= 3 else 0
    above = min(abs(levels[row - 1, column, place]), 2) if row else 0
    few, kernel = min(row_sum, 3), min(kernel_sum, 3)
    model.context[0] = in_all
    model.context[1] = in_row
    model.context[2] = in_column
    model.context[3] = in_row * 32 + in_column
    model.context[4] = (((before * 3 + over) * 4 + kernel) * 4 + few) * 4 + min(column_sum, 3)
    model.context[5] = min(place, 31) * 32 + in_column
    model.context[6] = (above * 4 + few) * 32 + in_column
    model.context[7] = (kernel * 4 + few) * 32 + in_all


@compiled
def _code(levels: Any, data: Any, decoding: bool, largest: int, constants: Any) -> int:
    """Write `levels`, int16 (rows, columns, places), to `data`, or read them from it.

    -> bytes that were written (or would be, if `data` is too short) or read; -1: a level beyond `largest`.
    """
    rows, columns, places = levels.shape
    coder = Coder(data, np.array([0, WORD, 0, 0]), decoding)
    for _ in range(4 if decoding else 0):
        _next_byte(coder)
    share = np.full((TABLES, CELLS, SLOTS), HALF)
    share[:, :, 1:] = HALF // 2
    weight = np.full((4 * SLOTS, TABLES), FIRST_WEIGHT)
    context, logit = np.zeros((2, TABLES), np.int64)
    model = Model(share, np.zeros((TABLES, CELLS, SLOTS), np.int64), weight, context, logit)
    sums, all_sum = np.zeros((columns, 2), np.int64), 0  # of sizes: in this kernel, in this column
    for row in range(rows):
        row_sum = 0
        for column in range(columns):
            sums[column, 0] = 0
            for place in range(places):
                _look(model, levels, row, column, place, row_sum, sums, all_sum)
                few, kernel = min(row_sum, 3), min(sums[column, 0], 3)
                level = _level(coder, model, constants, levels[row, column, place], few, kernel, largest)
                size = abs(level)
                if size > largest:
                    return -1
                if decoding:
                    levels[row, column, place] = level
                row_sum += size
                all_sum += size
                sums[column, 0] += size
                sums[column, 1] += size
    if not decoding:
        _finish(coder)
    length: int = coder.state[PLACE]
    return length


def encode(levels: NDArray[Any]) -> bytes:
    """Levels, whole numbers (rows, columns, places) of a size below 2^15 -> bytes."""
    whole = np.ascontiguousarray(levels, np.int16)
    room = 1024 + whole.size // 4
    while True:
        data = np.zeros(room, np.uint8)
        length = _code(whole, data, False, HALF, CONSTANTS)
        if length <= room:
            return data[:length].tobytes().rstrip(b"\0")
        room = length


def decode(data: NDArray[np.uint8], shape: tuple[int, int, int], largest: int) -> NDArray[np.int16]:
    """Undo `encode`. Raises: ValueError for bytes that are not levels of this shape and at most this size."""
    levels = np.zeros(shape, np.int16)
    length = _code(levels, np.array(data, np.uint8), True, largest, CONSTANTS)
    if length < 0:
        raise ValueError(f"a level beyond {largest}")
    if len(data) > length or (len(data) and data[-1] == 0):
        raise ValueError(f"{len(data)} bytes of coded levels, which end elsewhere")
    return levels
