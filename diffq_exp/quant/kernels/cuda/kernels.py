"""The loops over weights in a GPU's memory, compiled by Triton: those of ../cpu/kernels.py, with the same noise.

The table says which part a program has. Of a tile (../tiles.py) it takes one block after the other: some groups in
rows, both numbers powers of two. Nothing is read back from the GPU, and no sum depends on the order of programs.

    kernel              a program has    reads                                     writes
    find_extremes       a tile           weight                                    per tile: lows, highs
    merge_extremes      a tensor         lows, highs                               low, high
    add_noise           a tile           weight, logits; low, high                 noisy; per tile: at_low, at_high
    add_noise_backward  a tile           grad, logits; low, high                   grad_weight, grad_logits; sums
    finish_groups       a split group    logits; low, high; parts: the sums above  grad_logits; sums
    share_scale         a tile           weight; low, high, at_low, at_high; sums  grad_weight, at the extremes
    sum_bits            a tile, logits   logits; size, last                        per tile: sums, highs
    sum_bits_backward   a tile, logits   logits; size, last; factor                grad_logits

The operands `weight`, `grad` and so on hold the addresses of tensors. Groups, and with them tiles, are row-major;
memory may be channels_last: the operands `channels` and `inner` say where entries are (`positions_of`). Each entry
computes its whole counter of Philox, eight times as often as needed: some two hundred operations, the price of
groups of any size.
"""

import triton
import triton.language as tl

from .. import tiles as tiling
from .arithmetic import (
    HIGHEST,
    LOWEST,
    block,
    exp2,
    floats,
    load_tile,
    noise_at,
    ordered,
    positions_of,
    sigma_and_slope,
    step_and_slope,
)

TILE = tl.constexpr(tiling.TILE)
SPAN = tl.constexpr(1024)  # tiles of a tensor that are combined at a time
CHANGING = ["key", "number", "rank"]  # numbers for which Triton is not to compile anew


@triton.jit
def find_extremes(tiles, weight, lows, highs):
    """The lowest and the highest entry of as many as a tile has, as `ordered` integers -> lows, highs."""
    index = tl.program_id(0).to(tl.int64)
    tensor, start, stop, _, _ = load_tile(tiles, index)
    entry = start + tl.arange(0, TILE)
    bits = ordered(tl.load(floats(weight, tensor) + entry, entry < stop, 0.0).to(tl.int32, bitcast=True))
    tl.store(lows + index, tl.min(tl.where(entry < stop, bits, HIGHEST), 0))
    tl.store(highs + index, tl.max(tl.where(entry < stop, bits, LOWEST), 0))


@triton.jit
def merge_extremes(tensors, lows, highs, low, high):
    """The lowest and the highest of each tensor, as floats -> low, high; with nan, the low or the high is nan."""
    tensor = tl.program_id(0)
    least, most = tl.full((SPAN,), HIGHEST, tl.int32), tl.full((SPAN,), LOWEST, tl.int32)
    end = tl.load(tensors + tensor + 1)
    for begin in range(tl.load(tensors + tensor), end, SPAN):
        index = begin + tl.arange(0, SPAN)
        least = tl.minimum(least, tl.load(lows + index, index < end, HIGHEST))
        most = tl.maximum(most, tl.load(highs + index, index < end, LOWEST))
    tl.store(low + tensor, ordered(tl.min(least, 0)).to(tl.float32, bitcast=True))
    tl.store(high + tensor, ordered(tl.max(most, 0)).to(tl.float32, bitcast=True))


@triton.jit(do_not_specialize=CHANGING)
def add_noise(
    tiles, weight, channels, inner, logits, noisy, low, high, at_low, at_high, cells, key, number, rank, base,
    rise, offset, GROUP: tl.constexpr, GROUPS: tl.constexpr, ENTRIES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """weight + (high - low) * step * eps -> noisy; how many are the tensor's extremes -> at_low, at_high."""
    index = tl.program_id(0).to(tl.int64)
    tensor, start, stop, first, last = load_tile(tiles, index)
    lowest, highest = tl.load(low + tensor), tl.load(high + tensor)
    length, wide, long = (stop - start).to(tl.int32), tl.load(channels + tensor), tl.load(inner + tensor)
    lows, highs = tl.zeros((GROUPS,), tl.int32), tl.zeros((GROUPS,), tl.int32)
    for row in range(0, tl.cdiv(length, GROUP), GROUPS):
        local, inside, group = block(row, length, first, GROUP, GROUPS, ENTRIES, SPLIT)
        sigma, _ = sigma_and_slope(tl.load(floats(logits, tensor) + group, group < last, 0.0))
        amount = (highest - lowest) / (exp2(base + rise * sigma) - offset)
        positions = positions_of(local, start, wide, long)
        old = tl.load(floats(weight, tensor) + positions, inside, 0.0)
        eps = noise_at(cells, local, length, number + index, rank, key)
        tl.store(floats(noisy, tensor) + positions, old + amount[:, None] * eps, inside)
        lows += tl.sum((inside & (old == lowest) & (old < highest)).to(tl.int32), 1)
        highs += tl.sum((inside & (old == highest) & (old > lowest)).to(tl.int32), 1)
    tl.store(at_low + index, tl.sum(lows, 0))
    tl.store(at_high + index, tl.sum(highs, 0))


@triton.jit(do_not_specialize=CHANGING)
def add_noise_backward(
    tiles, grad, grad_channels, grad_inner, logits, grad_weight, grad_logits, low, high, sums, cells, key, number,
    rank, base, rise, offset, GROUP: tl.constexpr, GROUPS: tl.constexpr, ENTRIES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """The gradients -> grad_weight, without the share of the extremes, and grad_logits; that of the scale -> sums.

    Where tiles are parts of groups, the sums of gradient times noise -> sums; see `finish_groups`.
    """
    index = tl.program_id(0).to(tl.int64)
    tensor, start, stop, first, last = load_tile(tiles, index)
    total = tl.zeros((GROUPS,), tl.float32)
    if tl.load(grad + tensor) != 0:
        scale = tl.load(high + tensor) - tl.load(low + tensor)
        length, wide, long = (
            (stop - start).to(tl.int32),
            tl.load(grad_channels + tensor),
            tl.load(grad_inner + tensor),
        )
        for row in range(0, tl.cdiv(length, GROUP), GROUPS):
            local, inside, group = block(row, length, first, GROUP, GROUPS, ENTRIES, SPLIT)
            positions = positions_of(local, start, wide, long)
            given = tl.load(floats(grad, tensor) + positions, inside, 0.0)
            if tl.load(grad_weight + tensor) != 0:
                tl.store(floats(grad_weight, tensor) + positions, given, inside)
            eps = noise_at(cells, local, length, number + index, rank, key)
            dot = tl.sum(tl.where(inside, given * eps, 0.0), 1)
            if SPLIT:
                total += dot
            else:
                logit = tl.load(floats(logits, tensor) + group, group < last, 0.0)
                step, slope = step_and_slope(logit, base, rise, offset)
                tl.store(floats(grad_logits, tensor) + group, slope * scale * dot, group < last)
                total += tl.where(group < last, dot * step, 0.0)
    tl.store(sums + index, tl.sum(total, 0))


@triton.jit
def finish_groups(tiles, groups, logits, grad_logits, low, high, parts, sums, base, rise, offset):
    """From the sums of a group's parts its gradient -> grad_logits; the scale's -> sums, at its first tile."""
    group = tl.program_id(0)
    begin, end = tl.load(groups + group), tl.load(groups + group + 1)
    tensor, _, _, first, _ = load_tile(tiles, begin)
    total = tl.zeros((SPAN,), tl.float64)
    for some in range(begin, end, SPAN):
        index = some + tl.arange(0, SPAN)
        total += tl.load(parts + index, index < end, 0.0).to(tl.float64)
    dot = tl.sum(total, 0).to(tl.float32)
    step, slope = step_and_slope(tl.load(floats(logits, tensor) + first), base, rise, offset)
    scale = tl.load(high + tensor) - tl.load(low + tensor)
    tl.store(floats(grad_logits, tensor) + first, slope * scale * dot)
    tl.store(sums + begin, dot * step)


@triton.jit
def share_scale(
    tiles, tensors, weight, channels, inner, grad_weight, grad_channels, grad_inner, low, high, at_low, at_high,
    sums,
):  # fmt: skip
    """Add the gradient of the scale to those of the entries that are extremes, in equal shares."""
    index = tl.program_id(0).to(tl.int64)
    tensor, start, stop, _, _ = load_tile(tiles, index)
    if (tl.load(at_low + index) + tl.load(at_high + index) > 0) & (tl.load(grad_weight + tensor) != 0):
        total = tl.zeros((SPAN,), tl.float64)
        lows, highs = tl.zeros((SPAN,), tl.int64), tl.zeros((SPAN,), tl.int64)
        end = tl.load(tensors + tensor + 1)
        for begin in range(tl.load(tensors + tensor), end, SPAN):
            other = begin + tl.arange(0, SPAN)
            total += tl.load(sums + other, other < end, 0.0).to(tl.float64)
            lows += tl.load(at_low + other, other < end, 0)
            highs += tl.load(at_high + other, other < end, 0)
        to_low = (-tl.sum(total, 0) / tl.sum(lows, 0)).to(tl.float32)
        to_high = (tl.sum(total, 0) / tl.sum(highs, 0)).to(tl.float32)
        local = tl.arange(0, TILE)
        inside = local < stop - start
        positions = positions_of(local, start, tl.load(channels + tensor), tl.load(inner + tensor))
        value = tl.load(floats(weight, tensor) + positions, inside, 0.0)
        more = tl.where(value == tl.load(high + tensor), to_high, 0.0)
        more = tl.where(value == tl.load(low + tensor), to_low, more)
        positions = positions_of(local, start, tl.load(grad_channels + tensor), tl.load(grad_inner + tensor))
        to = floats(grad_weight, tensor) + positions
        tl.store(to, tl.load(to, inside, 0.0) + more, inside)


# ---- the kernels of the size: of tiles of logits ----------------------------------------------------------------


@triton.jit
def _logits(index, tiles, tensors, logits, size, last):
    """Of a tile: its tensor; its groups, and which of them exist; their logits; how many entries they have."""
    tensor, start, stop, _, _ = load_tile(tiles, index)
    group = start + tl.arange(0, TILE)
    inside = group < stop
    ends = (group == stop - 1) & (index + 1 == tl.load(tensors + tensor + 1))
    count = tl.where(ends, tl.load(last + tensor), tl.load(size + tensor))
    return tensor, group, inside, tl.load(floats(logits, tensor) + group, inside, 0.0), count


@triton.jit
def sum_bits(tiles, tensors, logits, size, last, sums, highs, base, rise, offset):
    """The bits of all entries of a tile's groups -> sums; its highest logit, as an `ordered` integer -> highs."""
    index = tl.program_id(0).to(tl.int64)
    _, _, inside, logit, count = _logits(index, tiles, tensors, logits, size, last)
    bits = tl.where(inside, ordered(logit.to(tl.int32, bitcast=True)), LOWEST)
    sigma, _ = sigma_and_slope(logit)
    width = base + rise * sigma
    if offset == 0.0:
        width = tl.log2(exp2(width) + 1.0)
    tl.store(sums + index, tl.sum(tl.where(inside, width * count, 0.0), 0))
    tl.store(highs + index, tl.max(bits, 0))


@triton.jit
def sum_bits_backward(tiles, tensors, logits, size, last, factor, grad_logits, base, rise, offset):
    """The gradient of `factor` times the bits -> grad_logits."""
    index = tl.program_id(0).to(tl.int64)
    tensor, group, inside, logit, count = _logits(index, tiles, tensors, logits, size, last)
    sigma, slope = sigma_and_slope(logit)
    power = exp2(base + rise * sigma)
    result = tl.load(factor) * count * rise * slope * power / (power + 1.0 - offset)
    tl.store(floats(grad_logits, tensor) + group, result, inside)
