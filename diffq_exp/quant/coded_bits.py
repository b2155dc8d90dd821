"""A differentiable estimate of the bits that coding in context spends on the levels of a weight.

The coder (storage/contexts.py) learns how full each row and each column of a weight is. Here the levels of a kernel
(the entries of a row that are in the same column) have the distribution of a discrete Laplace variable

    P(k) = (1 - theta) / (1 + theta) theta^|k|,    E|k| = m,    theta = m / (sqrt(1 + m^2) + 1)

whose mean m follows from the means of its row, its column and the tensor as if these were independent:
m = m_row m_column / m_tensor. So a level k costs log2((1 + theta) / (1 - theta)) + |k| log2(1 / theta) bits.
The gradient is that of a weighted L1 norm, with large weights where a row or a column is nearly empty. theta is
treated as a constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PRIOR = 0.5, 2.0  # the sum of sizes, and the number of levels, that a mean begins with
SMALLEST_MEAN = 1e-5


def kernels_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """(rows, columns, places) of a weight: its first two dimensions, and all others. A vector is one kernel."""
    rows, columns, *places = shape if len(shape) > 1 else (1, 1, *shape)
    return rows, columns, math.prod(places)


def estimated_bits(sizes: Tensor) -> Tensor:
    """Bits of a tensor whose levels have these real-valued sizes |k|, of any shape: (rows, columns)."""
    kernels = sizes.reshape(kernels_shape(sizes.shape))
    places, sums = kernels.shape[2], kernels.sum(2)  # (rows, columns)
    constant, slope = bits_of_mean(_means(sums.detach().float(), places))
    return places * constant + slope * sums


def bits_of_a_step(sizes: Tensor) -> Tensor:
    """What a level of each entry costs more than the next smaller one, in bits; the shape of `sizes`."""
    kernels = sizes.detach().reshape(kernels_shape(sizes.shape))
    slope = bits_of_mean(_means(kernels.sum(2).float(), kernels.shape[2]))[1]
    return slope[:, :, None].expand(kernels.shape).reshape(sizes.shape)


def row_and_column_means(sums: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """The mean size of the levels of each row, (rows,), and of each column in units of the tensor's, (columns,)."""
    rows, columns = sums.shape
    of_row = mean_size(sums.sum(1), columns * places)
    of_column = mean_size(sums.sum(0), rows * places)
    return of_row, of_column / mean_size(sums.sum(), rows * columns * places)


def _means(sums: Tensor, places: int) -> Tensor:
    """The mean size of the levels of each kernel, (rows, columns)."""
    of_row, of_column = row_and_column_means(sums, places)
    return (of_row[:, None] * of_column).clamp_(min=SMALLEST_MEAN)


def mean_size(total: Tensor, count: Tensor | int) -> Tensor:
    """The mean size of `count` levels whose sizes add up to `total`, as a coder that learns it would know it."""
    start, levels = PRIOR
    return (total + start) / (count + levels)


def bits_of_mean(mean: Tensor) -> tuple[Tensor, Tensor]:
    """What a level costs in bits where sizes have this mean: a constant, and a slope for each step of its size."""
    theta = mean / (torch.sqrt(1 + mean * mean) + 1)
    return torch.log2((1 + theta) / (1 - theta)), -torch.log2(theta)
