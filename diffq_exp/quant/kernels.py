"""The loops over weights in a CPU's memory, compiled by numba: the formulas of noise.py, bits.py and size.py.

Tensors are cut into pieces (pieces.py) that fit in a core's first cache, and all that is to be done with a piece is
done while it is there: its noise is drawn, used and forgotten, and drawn again in the backward. A kernel is a C
function of one job (jobs.py); several threads run it at once, each taking the next piece that is left (threads.py).

Noise is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a function of a key and
a counter, here (place in the piece, number of the piece, rank, 0), so that neither the number of threads nor their
order changes it.

What is read from a job inside of a loop keeps it from being made of vectors, hence the local names; and a plain
number would make float64 of float32, hence np.float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray

from .draw import CELLS
from .jobs import at, floats, has, inner, kernel, part, pieces_of, take

PIECE = 4096  # entries; a piece has whole groups, or is a part of one
SHORT = 32  # entries of a group
BLOCK = 8  # entries that a counter gives: 16 bits of 128 each

F0, F1, HALF = np.float32(0), np.float32(1), np.float32(0.5)
LOG2_E, LN2 = np.float32(1 / math.log(2)), np.float32(math.log(2))
TAYLOR = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))  # of 2^x
EXPONENT, SIGN, ROOT = np.int32(23), np.int32(31), np.float32(0.5**0.5).view(np.int32)  # in the bits of a float32


# ---- noise -------------------------------------------------------------------------------------------------------


@inner
def philox(out: Any, count: Any, number: Any, rank: Any, key: Any) -> None:
    """128 random bits for each counter (i, number, rank, 0), i < count, into `out`, uint32 (4 * count,)."""
    for i in range(count):
        c0, c1, c2, c3 = np.uint32(i), np.uint32(number), np.uint32(rank), np.uint32(0)
        k0, k1 = np.uint32(key), np.uint32(key >> np.uint64(32))
        for _ in range(10):
            one = np.uint64(c0) * np.uint64(0xD2511F53)
            other = np.uint64(c2) * np.uint64(0xCD9E8D57)
            c0 = np.uint32(other >> np.uint64(32)) ^ c1 ^ k0
            c2 = np.uint32(one >> np.uint64(32)) ^ c3 ^ k1
            c1, c3 = np.uint32(other), np.uint32(one)
            k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
        out[i], out[count + i], out[2 * count + i], out[3 * count + i] = c0, c1, c2, c3


@inner
def _draw(job: Any, place: Any, words: Any, eps: Any) -> None:
    """The eps of a piece."""
    philox(words, (len(eps) + BLOCK - 1) // BLOCK, job.number + np.uint64(place), job.rank, job.key)
    chosen, cells = words.view(np.uint16), floats(job.cells, CELLS)
    for i in range(len(eps)):
        eps[i] = cells[chosen[i]]


# ---- numbers -----------------------------------------------------------------------------------------------------


@inner
def _ordered(bits: Any) -> Any:
    """The bits of floats as integers in the order of the floats, nan outermost; and back."""
    return np.int32(bits ^ ((bits >> SIGN) & np.int32(2**31 - 1)))


@inner
def _value(ordered: Any) -> Any:
    return np.int32(_ordered(ordered)).view(np.float32)


@inner
def _exp2(x: Any) -> Any:
    """2^x within 2e-7 of it, for x from -126 to 127, where it stays; nan for nan."""
    x = max(min(x, np.float32(127)), np.float32(-126)) if x == x else x
    whole = np.floor(x + HALF)
    part = x - whole
    value = TAYLOR[7]
    value = value * part + TAYLOR[6]
    value = value * part + TAYLOR[5]
    value = value * part + TAYLOR[4]
    value = value * part + TAYLOR[3]
    value = value * part + TAYLOR[2]
    value = value * part + TAYLOR[1]
    value = value * part + TAYLOR[0]
    return value * np.int32((np.int32(whole) + np.int32(127)) << EXPONENT).view(np.float32)


@inner
def _log2(x: Any) -> Any:
    """The logarithm of a number of at least 1, within 2e-7 of it; nan for nan."""
    bits = np.float32(x).view(np.int32)
    exponent = (bits - ROOT) >> EXPONENT
    rest = np.int32(bits - (exponent << EXPONENT)).view(np.float32)  # in [sqrt(1/2), sqrt(2))
    t = (rest - F1) / (rest + F1)  # log(rest) = 2 artanh(t)
    square = t * t
    series = F1 + square * (np.float32(1 / 3) + square * (np.float32(1 / 5) + square * np.float32(1 / 7)))
    return np.float32(exponent) + np.float32(2) * LOG2_E * t * series if x == x else x


@inner
def _sigma(logit: Any) -> Any:
    return F1 / (F1 + _exp2(-LOG2_E * logit))


@inner
def _count(entries: Any, value: Any) -> Any:
    found = F0
    for entry in entries:
        found += F1 if entry == value else F0
    return found


@inner
def _sum_groups(entries: Any, size: Any, sums: Any) -> None:
    """The sum of each group: of many short ones all first entries, all second entries and so on."""
    full = len(entries) // size
    sums[:] = F0
    if size <= SHORT:
        for k in range(size):
            for j in range(full):
                sums[j] += entries[j * size + k]
    else:
        for j in range(full):
            for entry in entries[j * size : (j + 1) * size]:
                sums[j] += entry
    for entry in entries[full * size :]:
        sums[full] += entry


# ---- the kernels of the noise ------------------------------------------------------------------------------------


@kernel
def look(pointer: Any) -> None:
    """The lowest and the highest entry of each piece of `weight`, nan if one is nan -> lows, highs."""
    job = carray(pointer, 1)[0]
    pieces, lows, highs = pieces_of(job), floats(job.lows, job.count), floats(job.highs, job.count)
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        low, high = np.int32(2**31 - 1), np.int32(-(2**31))
        for bits in part(job.weight, piece.tensor, piece.start, piece.stop).view(np.int32):
            low, high = min(low, _ordered(bits)), max(high, _ordered(bits))
        lows[place], highs[place] = _value(low), _value(high)


@kernel
def add_noise(pointer: Any) -> None:
    """weight + (high - low) * step * eps -> noisy; how many are the tensor's extremes -> at_low, at_high."""
    job = carray(pointer, 1)[0]
    words, eps, amounts = np.empty(PIECE // 2, np.uint32), np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
    group = np.arange(PIECE) // job.group_size
    pieces, base, rise, offset = pieces_of(job), job.base, job.rise, job.offset
    at_low, at_high = floats(job.at_low, job.count), floats(job.at_high, job.count)
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        low, high = at(job.low, piece.tensor), at(job.high, piece.tensor)
        weight = part(job.weight, piece.tensor, piece.start, piece.stop)
        noisy = part(job.noisy, piece.tensor, piece.start, piece.stop)
        logits = part(job.logits, piece.tensor, piece.first, piece.last)
        for j in range(len(logits)):
            amounts[j] = (high - low) / (_exp2(base + rise * _sigma(logits[j])) - offset)
        noise = eps[: len(weight)]
        _draw(job, place, words, noise)
        for i in range(len(noise)):
            noisy[i] = weight[i] + amounts[group[i]] * noise[i]
        at_low[place] = _count(weight, low) if at(job.lows, place) == low and low < high else F0
        at_high[place] = _count(weight, high) if at(job.highs, place) == high and low < high else F0


@kernel
def pass_back(pointer: Any) -> None:
    """The gradients -> grad_weight, but for what the extremes get, and grad_logits; that of the scale -> sums.

    Where pieces are parts of groups, the sums of gradient times noise -> sums, and grad_logits is left alone.
    """
    job = carray(pointer, 1)[0]
    words, eps, dots = np.empty(PIECE // 2, np.uint32), np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
    pieces, sums, base, rise, offset = pieces_of(job), floats(job.sums, job.count), job.base, job.rise, job.offset
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        sums[place] = F0
        if not has(job.grad, piece.tensor):
            continue
        grad = part(job.grad, piece.tensor, piece.start, piece.stop)
        grad_weight = part(job.grad_weight, piece.tensor, piece.start, piece.stop)
        noise, dot = eps[: len(grad)], dots[: piece.last - piece.first]
        _draw(job, place, words, noise)
        for i in range(len(noise)):
            grad_weight[i] = grad[i]
            noise[i] *= grad[i]
        _sum_groups(noise, job.group_size, dot)
        if job.group_size > PIECE:
            sums[place] = dot[0]
            continue
        scale, total = at(job.high, piece.tensor) - at(job.low, piece.tensor), F0
        logits = part(job.logits, piece.tensor, piece.first, piece.last)
        grad_logits = part(job.grad_logits, piece.tensor, piece.first, piece.last)
        for j in range(len(logits)):
            tail = _exp2(-LOG2_E * logits[j])
            sigma = F1 / (F1 + tail)
            power = _exp2(base + rise * sigma)
            step = F1 / (power - offset)
            total += dot[j] * step
            grad_logits[j] = -LN2 * rise * (tail * sigma * sigma) * power * step * step * scale * dot[j]
        sums[place] = total


@kernel
def share(pointer: Any) -> None:
    """Add to_low and to_high to the gradients of the entries that are extremes."""
    job = carray(pointer, 1)[0]
    pieces = pieces_of(job)
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        if at(job.at_low, place) + at(job.at_high, place) == F0 or not has(job.grad, piece.tensor):
            continue
        low, high = at(job.low, piece.tensor), at(job.high, piece.tensor)
        to_low, to_high = at(job.to_low, piece.tensor), at(job.to_high, piece.tensor)
        weight = part(job.weight, piece.tensor, piece.start, piece.stop)
        grad_weight = part(job.grad_weight, piece.tensor, piece.start, piece.stop)
        for i in range(len(weight)):
            more = to_low if weight[i] == low else F0
            grad_weight[i] += to_high if weight[i] == high else more


# ---- the kernels of the size: of pieces of logits ----------------------------------------------------------------


@inner
def _ends(pieces: Any, place: Any) -> Any:
    """Whether it is the last piece of its tensor."""
    return place + 1 == len(pieces) or pieces[place + 1].tensor != pieces[place].tensor


@kernel
def sum_bits(pointer: Any) -> None:
    """The bits of all entries of a piece's groups -> sums; its highest logit -> highs."""
    job = carray(pointer, 1)[0]
    pieces, sums, highs = pieces_of(job), floats(job.sums, job.count), floats(job.highs, job.count)
    base, rise, offset, widths = job.base, job.rise, job.offset, np.empty(PIECE, np.float32)
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        logits = part(job.logits, piece.tensor, piece.start, piece.stop)
        total, high = F0, np.int32(-(2**31))
        for bits in logits.view(np.int32):
            high = max(high, _ordered(bits))
        for j in range(len(logits)):
            widths[j] = base + rise * _sigma(logits[j])
        if offset == F0:
            for j in range(len(logits)):
                widths[j] = _log2(_exp2(widths[j]) + F1)
        if _ends(pieces, place):
            widths[len(logits) - 1] *= at(job.last, piece.tensor) / at(job.size, piece.tensor)
        for width in widths[: len(logits)]:
            total += width
        sums[place], highs[place] = total * at(job.size, piece.tensor), _value(high)


@kernel
def pass_back_bits(pointer: Any) -> None:
    """The gradient of `factor` times the bits -> grad_logits."""
    job = carray(pointer, 1)[0]
    pieces, base, rise, offset = pieces_of(job), job.base, job.rise, job.offset
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        logits = part(job.logits, piece.tensor, piece.start, piece.stop)
        grad_logits = part(job.grad_logits, piece.tensor, piece.start, piece.stop)
        factor = at(job.factor, 0) * at(job.size, piece.tensor)
        for j in range(len(logits)):
            tail = _exp2(-LOG2_E * logits[j])
            sigma = F1 / (F1 + tail)
            power = _exp2(base + rise * sigma)
            grad_logits[j] = factor * rise * (tail * sigma * sigma) * power / (power + F1 - offset)
        if _ends(pieces, place):
            grad_logits[len(logits) - 1] *= at(job.last, piece.tensor) / at(job.size, piece.tensor)
