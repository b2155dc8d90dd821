"""The loops over weights in a CPU's memory, compiled by numba: the formulas of ../noise.py, ../bits.py and
../size.py.

Tensors are cut into pieces (../pieces.py) that fit in a core's caches, and all that is to be done with a piece is
done while it is there: its noise is drawn, used and forgotten, and drawn again in the backward. A kernel is a C
function of one job (jobs.py); several threads run it at once, each taking the next piece that is left (threads.py).
What is of a whole tensor, noise.py and size.py of this folder put together from its pieces, between two kernels:

    kernel          reads                                         writes
    look            weight                                        per piece: lows, highs
    add_noise       weight, logits; low, high; lows, highs        noisy; per piece: at_low, at_high
    pass_back       grad, logits; low, high                       grad_weight, grad_logits; per piece: sums
    share           weight; low, high, to_...; at_...             grad_weight, at the extremes
    sum_bits        logits; size, last                            per piece: sums, highs
    pass_back_bits  logits; size, last; factor                    grad_logits

What is read from a job inside of a loop keeps it from being made of vectors, hence the local names; see also
arithmetic.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from ...noise import CELLS
from ..tiles import PIECE
from .arithmetic import (
    F0,
    F1,
    LN2,
    add_up_groups,
    count_of,
    exp2,
    log2,
    ordered,
    philox,
    sigma_and_slope,
    sigmoid,
    sum_of,
    value_of,
)
from .jobs import at, floats, has, inner, kernel, part, pieces_of, take

BLOCK = 8  # entries that a counter gives: 16 bits of 128 each


@inner
def _draw(job: Any, place: Any, words: Any, eps: Any) -> None:
    """The eps of a piece."""
    philox(words, (len(eps) + BLOCK - 1) // BLOCK, job.number + np.uint64(place), job.rank, job.key)
    chosen, cells = words.view(np.uint16), floats(job.cells, CELLS)
    for i in range(len(eps)):
        eps[i] = cells[chosen[i]]


# ---- the kernels of the noise ------------------------------------------------------------------------------------


@kernel
def look(pointer: Any) -> None:
    """The lowest and the highest entry of each piece of `weight` -> lows, highs; with nan, one of both is nan."""
    job = carray(pointer, 1)[0]
    pieces, lows, highs = pieces_of(job), floats(job.lows, job.count), floats(job.highs, job.count)
    for _ in range(job.count):
        place = take(pointer)
        if place >= job.count:
            break
        piece = pieces[place]
        low, high = np.int32(2**31 - 1), np.int32(-(2**31))
        for bits in part(job.weight, piece.tensor, piece.start, piece.stop).view(np.int32):
            low, high = min(low, ordered(bits)), max(high, ordered(bits))
        lows[place], highs[place] = value_of(low), value_of(high)


@kernel
def add_noise(pointer: Any) -> None:
    """weight + (high - low) * step * eps -> noisy; how many are the tensor's extremes -> at_low, at_high."""
    job = carray(pointer, 1)[0]
    words, eps, amounts = np.empty(PIECE // 2, np.uint32), np.empty(PIECE, np.float32), np.empty(PIECE, np.float32)
    group = (np.arange(PIECE) // job.group_size).astype(np.int32)
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
            amounts[j] = (high - low) / (exp2(base + rise * sigmoid(logits[j])) - offset)
        noise = eps[: len(weight)]
        _draw(job, place, words, noise)
        for i in range(len(noise)):
            noisy[i] = weight[i] + amounts[group[i]] * noise[i]
        at_low[place] = count_of(weight, low) if at(job.lows, place) == low and low < high else F0
        at_high[place] = count_of(weight, high) if at(job.highs, place) == high and low < high else F0


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
        noise, dot = eps[: len(grad)], dots[: piece.last - piece.first]
        _draw(job, place, words, noise)
        for i in range(len(noise)):
            noise[i] *= grad[i]
        if has(job.grad_weight, piece.tensor):
            part(job.grad_weight, piece.tensor, piece.start, piece.stop)[:] = grad
        add_up_groups(noise, job.group_size, dot)
        if job.group_size > PIECE:
            sums[place] = dot[0]
            continue
        scale = at(job.high, piece.tensor) - at(job.low, piece.tensor)
        logits = part(job.logits, piece.tensor, piece.first, piece.last)
        grad_logits = part(job.grad_logits, piece.tensor, piece.first, piece.last)
        for j in range(len(logits)):
            sigma, slope = sigma_and_slope(logits[j])
            power = exp2(base + rise * sigma)
            step = F1 / (power - offset)
            grad_logits[j] = -LN2 * rise * slope * power * step * step * scale * dot[j]
            dot[j] *= step
        sums[place] = sum_of(dot)


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
        if at(job.at_low, place) + at(job.at_high, place) == F0 or not has(job.grad_weight, piece.tensor):
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
        high = np.int32(-(2**31))
        for bits in logits.view(np.int32):
            high = max(high, ordered(bits))
        for j in range(len(logits)):
            widths[j] = base + rise * sigmoid(logits[j])
        if offset == F0:
            for j in range(len(logits)):
                widths[j] = log2(exp2(widths[j]) + F1)
        if _ends(pieces, place):
            widths[len(logits) - 1] *= at(job.last, piece.tensor) / at(job.size, piece.tensor)
        sums[place] = sum_of(widths[: len(logits)]) * at(job.size, piece.tensor)
        highs[place] = value_of(high)


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
            sigma, slope = sigma_and_slope(logits[j])
            power = exp2(base + rise * sigma)
            grad_logits[j] = factor * rise * slope * power / (power + F1 - offset)
        if _ends(pieces, place):
            grad_logits[len(logits) - 1] *= at(job.last, piece.tensor) / at(job.size, piece.tensor)
