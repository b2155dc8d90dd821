"""Functions that kernels.py computes with: random bits, powers and logarithms of two, sums; compiled by numba.

Noise is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a function of a key and
a counter, so that neither the number of threads nor their order changes it. A plain number would make float64 of
float32, hence np.float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..cells import CELLS
from .jobs import adding, exact, floats, inner

SHORT = 32  # entries of a group
PER_COUNTER = 8  # entries that a counter gives: 16 bits of 128 each
F0, F1, HALF = np.float32(0), np.float32(1), np.float32(0.5)
LOG2_E, LN2 = np.float32(1 / math.log(2)), np.float32(math.log(2))
MIDDLE, PER_CELL = np.float32((CELLS - 1) / 2), np.float32(1 / CELLS)
TAYLOR = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(8))  # of 2^x
EXPONENT, SIGN, ROOT = np.int32(23), np.int32(31), np.float32(0.5**0.5).view(np.int32)  # in the bits of a float32


@inner
def philox(out: Any, count: Any, number: Any, rank: Any, key: Any) -> None:
    """128 random bits for each counter (i, number, rank, 0), i < count, into `out`, uint32 (4 * count,)."""
    for i in range(count):
        c0, c1, c2, c3 = np.uint32(i), np.uint32(number), np.uint32(rank), np.uint32(0)
        k0, k1 = np.uint32(key), np.uint32(key >> np.uint64(32))
        for _ in range(10):
            first = np.uint64(c0) * np.uint64(0xD2511F53)
            second = np.uint64(c2) * np.uint64(0xCD9E8D57)
            c0 = np.uint32(second >> np.uint64(32)) ^ c1 ^ k0
            c2 = np.uint32(first >> np.uint64(32)) ^ c3 ^ k1
            c1, c3 = np.uint32(second), np.uint32(first)
            k0, k1 = np.uint32(k0 + np.uint32(0x9E3779B9)), np.uint32(k1 + np.uint32(0xBB67AE85))
        out[i], out[count + i], out[2 * count + i], out[3 * count + i] = c0, c1, c2, c3


@inner
def fill_noise(job: Any, index: Any, words: Any, eps: Any) -> None:
    """The eps of a tile."""
    philox(words, (len(eps) + PER_COUNTER - 1) // PER_COUNTER, job.number + np.uint64(index), job.rank, job.key)
    chosen = words.view(np.uint16)
    if job.cells == 0:  # of the uniform noise, whose values need no table
        for i in range(len(eps)):
            eps[i] = (np.float32(chosen[i]) - MIDDLE) * PER_CELL
        return
    cells = floats(job.cells, CELLS)
    for i in range(len(eps)):
        eps[i] = cells[chosen[i]]


@inner
def ordered(bits: Any) -> Any:
    """The bits of floats as integers in the order of the floats, nan outermost; and back."""
    return np.int32(bits ^ ((bits >> SIGN) & np.int32(2**31 - 1)))


@inner
def value_of(number: Any) -> Any:
    """The float of a number that `ordered` gave."""
    return np.int32(ordered(number)).view(np.float32)


@inner
def exp2(x: Any) -> Any:
    """2^x within 2e-7 of it, with x clamped to [-126, 127]; nan for nan."""
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
def log2(x: Any) -> Any:
    """The logarithm of a number of at least 1, within 3e-7 times it plus 2e-7; nan for nan."""
    bits = np.float32(x).view(np.int32)
    exponent = (bits - ROOT) >> EXPONENT
    rest = np.int32(bits - (exponent << EXPONENT)).view(np.float32)  # in [sqrt(1/2), sqrt(2))
    t = (rest - F1) / (rest + F1)  # log(rest) = 2 artanh(t)
    square = t * t
    series = F1 + square * (np.float32(1 / 3) + square * (np.float32(1 / 5) + square * np.float32(1 / 7)))
    return np.float32(exponent) + np.float32(2) * LOG2_E * t * series if x == x else x


@inner
def sigmoid(logit: Any) -> Any:
    return F1 / (F1 + exp2(-LOG2_E * logit))


@inner
def sigma_and_slope(logit: Any) -> Any:
    """sigma, and its derivative sigma (1 - sigma): of factors that are at most 1, in this order."""
    rest = exp2(-LOG2_E * logit)
    sigma = F1 / (F1 + rest)
    return sigma, sigma * (rest * sigma)


@adding
def count_of(entries: Any, value: Any) -> Any:
    count = F0
    for i in range(len(entries)):
        count += F1 if entries[i] == value else F0
    return count


@adding
def sum_of(entries: Any) -> Any:
    """The order of the additions is the compiler's, but always the same: it does not depend on addresses in memory.

    The loop is by index, since a loop over an iterator does not become vectors.
    """
    total = F0
    for i in range(len(entries)):
        total += entries[i]
    return total


@inner
def add_up_groups(entries: Any, size: Any, sums: Any) -> None:
    """The sum of each group. Of short ones, entry k of every group at once: loops over groups become vectors."""
    full = len(entries) // size
    if size <= SHORT:
        sums[:] = F0
        for k in range(size):
            for j in range(full):
                sums[j] += entries[j * size + k]
    else:
        for j in range(full):
            sums[j] = sum_of(entries[j * size : (j + 1) * size])
    if full < len(sums):
        sums[full] = sum_of(entries[full * size :])


@adding
def dot(one: Any, other: Any) -> Any:
    """The sum of their products; see `sum_of`."""
    total = F0
    for i in range(len(one)):
        total += one[i] * other[i]
    return total


@exact
def level(weight: Any, step: Any) -> Any:
    """The level of a weight, a whole number as a float: as evaluation has it, so without reciprocals."""
    return np.rint(weight / step)
