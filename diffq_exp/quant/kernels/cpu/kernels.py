"""The loops over weights in a CPU's memory, compiled by numba: noisy_weights.py, bits.py and formula.py in C.

Tensors are cut into tiles (../tiles.py) that fit in a core's caches, and all work on a tile is done while it is
there: its noise is made, used and forgotten, and made again in the backward. A kernel is a C function of one job
(jobs.py); several threads run it at once, each taking the next tile that is left (threads.py).

    kernel              reads                                         writes
    find_extremes       weight                                        per tile: lows, highs
    add_noise           weight, logits; low, high; lows, highs        noisy; per tile: at_low, at_high
    add_noise_backward  grad, logits; low, high                       grad_weight, grad_logits; per tile: sums
    share_scale         weight; low, high, to_...; at_...             grad_weight, at the extremes
    sum_bits            logits; size, last                            per tile: sums, highs
    sum_bits_backward   logits; size, last; factor                    grad_logits

Fields of a job are read into local names before a loop: a loop that reads them does not become vectors. See also
arithmetic.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from ..tiles import TILE
from .arithmetic import (
    F0,
    F1,
    LN2,
    add_up_groups,
    count_of,
    exp2,
    fill_noise,
    log2,
    ordered,
    sigma_and_slope,
    sigmoid,
    sum_of,
    value_of,
)
from .jobs import at, entries_of, floats, has, inner, kernel, take, tiles_of

# ---- the kernels of the noise ------------------------------------------------------------------------------------


@kernel
def find_extremes(pointer: Any) -> None:
    """The lowest and the highest entry of each tile of `weight` -> lows, highs; with nan, either is nan."""
    job = carray(pointer, 1)[0]
    tiles, lows, highs = tiles_of(job), floats(job.lows, job.count), floats(job.highs, job.count)
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        low, high = np.int32(2**31 - 1), np.int32(-(2**31))
        for bits in entries_of(job.weight, tile.tensor, tile.start, tile.stop).view(np.int32):
            low, high = min(low, ordered(bits)), max(high, ordered(bits))
        lows[index], highs[index] = value_of(low), value_of(high)


@kernel
def add_noise(pointer: Any) -> None:
    """weight + (high - low) * step * eps -> noisy; how many are the tensor's extremes -> at_low, at_high."""
    job = carray(pointer, 1)[0]
    words, eps, amounts = np.empty(TILE // 2, np.uint32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    group = (np.arange(TILE) // job.group_size).astype(np.int32)
    tiles, base, rise, offset = tiles_of(job), job.base, job.rise, job.offset
    at_low, at_high = floats(job.at_low, job.count), floats(job.at_high, job.count)
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        low, high = at(job.low, tile.tensor), at(job.high, tile.tensor)
        weight = entries_of(job.weight, tile.tensor, tile.start, tile.stop)
        noisy = entries_of(job.noisy, tile.tensor, tile.start, tile.stop)
        logits = entries_of(job.logits, tile.tensor, tile.first, tile.last)
        for j in range(len(logits)):
            amounts[j] = (high - low) / (exp2(base + rise * sigmoid(logits[j])) - offset)
        noise = eps[: len(weight)]
        fill_noise(job, index, words, noise)
        for i in range(len(noise)):
            noisy[i] = weight[i] + amounts[group[i]] * noise[i]
        at_low[index] = count_of(weight, low) if at(job.lows, index) == low and low < high else F0
        at_high[index] = count_of(weight, high) if at(job.highs, index) == high and low < high else F0


@kernel
def add_noise_backward(pointer: Any) -> None:
    """The gradients -> grad_weight, without the share of the extremes, and grad_logits; that of the scale -> sums.

    Where tiles are parts of groups, the sums of gradient times noise -> sums, and grad_logits is left alone.
    """
    job = carray(pointer, 1)[0]
    words, eps, dots = np.empty(TILE // 2, np.uint32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    tiles, sums, base, rise, offset = tiles_of(job), floats(job.sums, job.count), job.base, job.rise, job.offset
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        sums[index] = F0
        if not has(job.grad, tile.tensor):
            continue
        grad = entries_of(job.grad, tile.tensor, tile.start, tile.stop)
        noise, dot = eps[: len(grad)], dots[: tile.last - tile.first]
        fill_noise(job, index, words, noise)
        for i in range(len(noise)):
            noise[i] *= grad[i]
        if has(job.grad_weight, tile.tensor):
            entries_of(job.grad_weight, tile.tensor, tile.start, tile.stop)[:] = grad
        add_up_groups(noise, job.group_size, dot)
        if job.group_size > TILE:
            sums[index] = dot[0]
            continue
        scale = at(job.high, tile.tensor) - at(job.low, tile.tensor)
        logits = entries_of(job.logits, tile.tensor, tile.first, tile.last)
        grad_logits = entries_of(job.grad_logits, tile.tensor, tile.first, tile.last)
        for j in range(len(logits)):
            sigma, slope = sigma_and_slope(logits[j])
            power = exp2(base + rise * sigma)
            step = F1 / (power - offset)
            grad_logits[j] = -LN2 * rise * slope * power * step * step * scale * dot[j]
            dot[j] *= step
        sums[index] = sum_of(dot)


@kernel
def share_scale(pointer: Any) -> None:
    """Add to_low and to_high to the gradients of the entries that are extremes."""
    job = carray(pointer, 1)[0]
    tiles = tiles_of(job)
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        if at(job.at_low, index) + at(job.at_high, index) == F0 or not has(job.grad_weight, tile.tensor):
            continue
        low, high = at(job.low, tile.tensor), at(job.high, tile.tensor)
        to_low, to_high = at(job.to_low, tile.tensor), at(job.to_high, tile.tensor)
        weight = entries_of(job.weight, tile.tensor, tile.start, tile.stop)
        grad_weight = entries_of(job.grad_weight, tile.tensor, tile.start, tile.stop)
        for i in range(len(weight)):
            more = to_low if weight[i] == low else F0
            grad_weight[i] += to_high if weight[i] == high else more


# ---- the kernels of the size: of tiles of logits ----------------------------------------------------------------


@inner
def _ends(tiles: Any, index: Any) -> Any:
    """Whether it is the last tile of its tensor."""
    return index + 1 == len(tiles) or tiles[index + 1].tensor != tiles[index].tensor


@kernel
def sum_bits(pointer: Any) -> None:
    """The bits of all entries of a tile's groups -> sums; its highest logit -> highs."""
    job = carray(pointer, 1)[0]
    tiles, sums, highs = tiles_of(job), floats(job.sums, job.count), floats(job.highs, job.count)
    base, rise, offset, widths = job.base, job.rise, job.offset, np.empty(TILE, np.float32)
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        logits = entries_of(job.logits, tile.tensor, tile.start, tile.stop)
        high = np.int32(-(2**31))
        for bits in logits.view(np.int32):
            high = max(high, ordered(bits))
        for j in range(len(logits)):
            widths[j] = base + rise * sigmoid(logits[j])
        if offset == F0:
            for j in range(len(logits)):
                widths[j] = log2(exp2(widths[j]) + F1)
        if _ends(tiles, index):
            widths[len(logits) - 1] *= at(job.last, tile.tensor) / at(job.size, tile.tensor)
        sums[index] = sum_of(widths[: len(logits)]) * at(job.size, tile.tensor)
        highs[index] = value_of(high)


@kernel
def sum_bits_backward(pointer: Any) -> None:
    """The gradient of `factor` times the bits -> grad_logits."""
    job = carray(pointer, 1)[0]
    tiles, base, rise, offset = tiles_of(job), job.base, job.rise, job.offset
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        logits = entries_of(job.logits, tile.tensor, tile.start, tile.stop)
        grad_logits = entries_of(job.grad_logits, tile.tensor, tile.start, tile.stop)
        factor = at(job.factor, 0) * at(job.size, tile.tensor)
        for j in range(len(logits)):
            sigma, slope = sigma_and_slope(logits[j])
            power = exp2(base + rise * sigma)
            grad_logits[j] = factor * rise * slope * power / (power + F1 - offset)
        if _ends(tiles, index):
            grad_logits[len(logits) - 1] *= at(job.last, tile.tensor) / at(job.size, tile.tensor)
