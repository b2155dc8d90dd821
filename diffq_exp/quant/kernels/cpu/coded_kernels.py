"""The loops over weights that have a step, compiled by numba: rate.py and coded_bits.py in C; see kernels.py.

    kernel                    reads                                      writes
    values_and_sums           weight, steps                              noisy, blocks
    values_and_sums_backward  weight, steps, grad, slopes                grad_weight; per tile: sums
    estimate_bits             blocks, of_row, of_column; columns, places slopes; per tile: sums

noisy: training values, with noise or rounded. blocks: for each block, the sum of the sizes of its levels; slopes:
the gradients of these. The first two go through tiles of weights (../blocks.py), where noisy, blocks, grad, slopes
and grad_weight may each be missing; the last goes through tiles of blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray

from ...coded_bits import SMALLEST_MEAN
from ..tiles import TILE
from .arithmetic import F0, F1, dot, fill_noise, level, log2, sum_of
from .jobs import at, entries_of, floats, has, inner, integers, kernel, take, tiles_of

LEAST = np.float32(SMALLEST_MEAN)


@inner
def _sign(x: Any) -> Any:
    return F1 if x > F0 else (-F1 if x < F0 else F0)


@inner
def _add_up_sizes(entries: Any, unit: Any, sums: Any) -> None:
    """The sum of |entry| / unit of each block."""
    if len(entries) == len(sums):
        for j in range(len(sums)):
            sums[j] = abs(entries[j]) / unit
        return
    blocks = entries.reshape(len(sums), len(entries) // len(sums))
    for j in range(len(sums)):
        total = F0
        for k in range(blocks.shape[1]):
            total += abs(blocks[j, k])
        sums[j] = total / unit


@inner
def _spread(values: Any, unit: Any, entries: Any) -> None:
    """The value / unit of its block for each entry."""
    if len(entries) == len(values):
        for j in range(len(values)):
            entries[j] = values[j] / unit
        return
    blocks = entries.reshape(len(values), len(entries) // len(values))
    for j in range(len(values)):
        value = values[j] / unit
        for k in range(blocks.shape[1]):
            blocks[j, k] = value


@kernel
def values_and_sums(pointer: Any) -> None:
    """weight + step * eps, or the nearest multiple of the step -> noisy; the sums of sizes of levels -> blocks."""
    job = carray(pointer, 1)[0]
    words, scratch = np.empty(TILE // 2, np.uint32), np.empty(TILE, np.float32)
    tiles, rounded = tiles_of(job), job.rounded
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        step = at(job.steps, tile.tensor)
        weight = entries_of(job.weight, tile.tensor, tile.start, tile.stop)
        other = scratch[: len(weight)]  # levels, or noise
        if rounded:
            for i in range(len(other)):
                other[i] = level(weight[i], step)
        if has(job.noisy, tile.tensor):
            noisy = entries_of(job.noisy, tile.tensor, tile.start, tile.stop)
            if rounded:
                for i in range(len(other)):
                    noisy[i] = other[i] * step
            else:
                fill_noise(job, index, words, other)
                for i in range(len(other)):
                    noisy[i] = weight[i] + step * other[i]
        if has(job.blocks, tile.tensor):
            blocks = entries_of(job.blocks, tile.tensor, tile.first, tile.last)
            if rounded:
                _add_up_sizes(other, F1, blocks)
            else:
                _add_up_sizes(weight, step, blocks)


@kernel
def values_and_sums_backward(pointer: Any) -> None:
    """The gradients that come by the sums, and by the values -> grad_weight; that of the log of the step -> sums.

    Where there are no slopes, grad_weight would be grad, and is left alone.
    """
    job = carray(pointer, 1)[0]
    words, scratch, others = np.empty(TILE // 2, np.uint32), np.empty(TILE, np.float32), np.empty(TILE, np.float32)
    tiles, sums, rounded = tiles_of(job), floats(job.sums, job.count), job.rounded
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        step, total = at(job.steps, tile.tensor), F0
        weight = entries_of(job.weight, tile.tensor, tile.start, tile.stop)
        own, levels = scratch[: len(weight)], others[: len(weight)]
        if rounded:
            for i in range(len(levels)):
                levels[i] = level(weight[i], step)
        if has(job.grad, tile.tensor):
            if rounded:
                for i in range(len(own)):
                    own[i] = levels[i] - weight[i] / step
            else:
                fill_noise(job, index, words, own)
            total += step * dot(entries_of(job.grad, tile.tensor, tile.start, tile.stop), own)
        if has(job.slopes, tile.tensor):
            _spread(entries_of(job.slopes, tile.tensor, tile.first, tile.last), step, own)
            signs = levels if rounded else weight
            for i in range(len(own)):
                own[i] *= _sign(signs[i])
            total -= dot(own, weight)
            if has(job.grad_weight, tile.tensor):
                grad_weight = entries_of(job.grad_weight, tile.tensor, tile.start, tile.stop)
                if has(job.grad, tile.tensor):
                    grad = entries_of(job.grad, tile.tensor, tile.start, tile.stop)
                    for i in range(len(own)):
                        grad_weight[i] = grad[i] + own[i]
                else:
                    grad_weight[:] = own
        sums[index] = total


@kernel
def estimate_bits(pointer: Any) -> None:
    """What a level costs more than the next smaller one, for each block -> slopes; the bits of all levels -> sums.

    With root = sqrt(1 + mean^2), theta is mean / (root + 1), and (1 + theta) / (1 - theta) is root + mean.
    """
    job = carray(pointer, 1)[0]
    scratch, tiles, sums = np.empty(TILE, np.float32), tiles_of(job), floats(job.sums, job.count)
    for _ in range(job.count):
        index = take(pointer)
        if index >= job.count:
            break
        tile = tiles[index]
        columns, places = integers(job.columns, tile.tensor + 1)[tile.tensor], at(job.places, tile.tensor)
        start = tile.start
        while start < tile.stop:  # one row, or what the tile has of it
            row, bits = start // columns, scratch[start - tile.start :]
            stop = min(tile.stop, (row + 1) * columns)
            of_row = entries_of(job.of_row, tile.tensor, row, row + 1)[0]
            of_column = entries_of(job.of_column, tile.tensor, start - row * columns, stop - row * columns)
            sizes = entries_of(job.blocks, tile.tensor, start, stop)
            slopes = entries_of(job.slopes, tile.tensor, start, stop)
            for j in range(len(sizes)):
                mean = max(of_row * of_column[j], LEAST)
                root = np.sqrt(F1 + mean * mean)
                slope = log2((root + F1) / mean)
                slopes[j] = slope
                bits[j] = places * log2(root + mean) + slope * sizes[j]
            start = stop
        sums[index] = sum_of(scratch[: tile.stop - tile.start])
