"""Functions that kernels.py computes with: tiles, their blocks, positions in memory, random bits, powers of two."""

import math

import triton
import triton.language as tl

LN2, LOG2_E = tl.constexpr(math.log(2)), tl.constexpr(1 / math.log(2))
LOWEST, HIGHEST = tl.constexpr(-(2**31)), tl.constexpr(2**31 - 1)  # integers that `ordered` gives


@triton.jit
def load_tile(tiles, index):
    """tensor; start, stop: its entries; first, last: its groups."""
    at = tiles + 5 * index
    return tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)


@triton.jit
def floats(addresses, tensor):
    """The first entry of one of several tensors, as a pointer."""
    return tl.load(addresses + tensor).to(tl.pointer_type(tl.float32))


@triton.jit
def positions_of(local, start, channels, inner):
    """Positions of the entries start + local of (outer, channels, inner), in memory of (outer, inner, channels)."""
    positions = start + local
    size = channels * inner
    if size > 1:
        wide, long = channels.to(tl.int32), inner.to(tl.int32)
        entry = (start % size).to(tl.int32) + local
        rest = entry % (wide * long)
        positions = start // size * size + (entry - rest) + rest % long * wide + rest // long
    return positions


@triton.jit
def ordered(bits):
    """The bits of floats as integers in the order of the floats, nan outermost; and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def exp2(x):
    """2^x with x at most 127; nan for nan."""
    return tl.exp2(tl.where(x > 127.0, 127.0, x))


@triton.jit
def sigma_and_slope(logit):
    """sigma, and its derivative sigma (1 - sigma)."""
    rest = exp2(logit * -LOG2_E)
    sigma = 1.0 / (1.0 + rest)
    return sigma, sigma * (rest * sigma)


@triton.jit
def step_and_slope(logit, base, rise, offset):
    """Step s, and d s / d logit."""
    sigma, slope = sigma_and_slope(logit)
    power = exp2(base + rise * sigma)
    step = 1.0 / (power - offset)
    return step, rise * slope * power * step * step * -LN2


@triton.jit
def noise_at(cells, local, length, number, rank, key):
    """The eps of entries of a tile: 16 of the 128 bits that Philox4x32-10 gives for a counter choose a cell."""
    counters = (length + 7) // 8
    word = local // 2  # as cpu/kernels.py has them: the first words of all counters, then the second ones, ...
    counter, which = (word % counters).to(tl.uint32), word // counters
    c0, c1, c2, c3 = tl.philox(key, counter, number.to(tl.uint32), rank.to(tl.uint32), 0)
    bits = tl.where(which == 0, c0, tl.where(which == 1, c1, tl.where(which == 2, c2, c3)))
    return tl.load(cells + ((bits >> (local % 2 * 16).to(tl.uint32)) & 0xFFFF).to(tl.int32))


@triton.jit
def block(
    row, length, first, GROUP: tl.constexpr, GROUPS: tl.constexpr, ENTRIES: tl.constexpr, SPLIT: tl.constexpr
):
    """Rows of a tile: entries, counted from its first, (GROUPS, ENTRIES); which of them exist; the rows' groups."""
    rows = row + tl.arange(0, GROUPS)
    entry = tl.arange(0, ENTRIES)[None, :]
    local = rows[:, None] * GROUP + entry
    return local, (entry < GROUP) & (local < length), first + (rows * 0 if SPLIT else rows)
