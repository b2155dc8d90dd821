"""The four functions between tensors in a CPU's memory; ../autograd.py calls them, kernels.py has their loops.

Kernels see tiles. The numbers of a whole tensor are made from those of its tiles here, between two kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..autograd import Bundle, Sizes
from ..cells import Array, cells_of
from ..operands import addresses
from ..tiles import group_sizes
from . import kernels
from .threads import run

CHANNELS_LAST = False  # whether tensors of that memory format may stay as they are

Extremes = dict[str, Array]  # low, high: of tensors, (T,); at_low, at_high: their numbers in tiles, (P,)


def add_noise(
    bundle: Bundle, weights: Sequence[Tensor], logits: Sequence[Tensor], noisy: Sequence[Tensor]
) -> Extremes:
    """Write the noisy weights."""
    tiling, weight = bundle.tiling, addresses(weights)
    lows, highs, at_low, at_high = np.empty((4, len(tiling.tiles)), np.float32)
    run(kernels.find_extremes, tiling, weight=weight, lows=lows, highs=highs)
    low, high = (
        np.minimum.reduceat(lows, tiling.first_of_tensor),
        np.maximum.reduceat(highs, tiling.first_of_tensor),
    )
    extremes = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
    operands = {"weight": weight, "logits": addresses(logits), "noisy": addresses(noisy)}
    run(kernels.add_noise, tiling, **_noise_operands(bundle), **operands, **extremes, lows=lows, highs=highs)
    return extremes


def add_noise_backward(
    bundle: Bundle,
    extremes: Extremes,
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    to_weights: Sequence[Tensor | None],
    to_logits: Sequence[Tensor],
) -> None:
    """Write the gradients, but for those that are None. extremes: those that `add_noise` gave."""
    tiling = bundle.tiling
    grad = {"grad": addresses(grads), "grad_weight": addresses(to_weights)}
    operands = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    sums = np.empty(len(tiling.tiles), np.float32)
    run(kernels.add_noise_backward, tiling, **_noise_operands(bundle), **grad, **operands, **extremes, sums=sums)
    if tiling.split:  # sums of gradient times noise in parts of groups
        to_scale = _finish_groups(bundle, extremes, add_up(sums, tiling.first_of_group), logits, to_logits)
    else:
        to_scale = add_up(sums, tiling.first_of_tensor)
    low, high = (add_up(extremes[side], tiling.first_of_tensor) for side in ("at_low", "at_high"))
    shares = {"to_low": -to_scale / np.maximum(low, 1), "to_high": to_scale / np.maximum(high, 1)}
    own = {"weight": addresses(weights), "grad_weight": grad["grad_weight"]}
    run(kernels.share_scale, tiling, **own, **extremes, **shares)


def sum_bits(sizes: Sizes, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The bits of all entries, (); each tensor's highest logit, (T,)."""
    tiling = sizes.tiling
    sums, highs = np.empty((2, len(tiling.tiles)), np.float32)
    run(kernels.sum_bits, tiling, logits=addresses(logits), sums=sums, highs=highs, **_size_operands(sizes))
    total = torch.tensor(sums.sum(dtype=np.float64), dtype=torch.float32, device="cpu")
    return total, torch.from_numpy(np.maximum.reduceat(highs, tiling.first_of_tensor))


def sum_bits_backward(sizes: Sizes, logits: Sequence[Tensor], factor: Tensor, to_logits: Sequence[Tensor]) -> None:
    """Write the gradient of `factor`, (), times the bits."""
    operands = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    run(kernels.sum_bits_backward, sizes.tiling, factor=factor.data_ptr(), **operands, **_size_operands(sizes))


def _noise_operands(bundle: Bundle) -> dict[str, Any]:
    """The operands that give the noise and its size."""
    noise = {"cells": cells_of(bundle.noise), "key": bundle.key, "number": bundle.number, "rank": bundle.rank}
    return {**noise, "group_size": bundle.tiling.group_size, **bundle.param.fields}


def _size_operands(sizes: Sizes) -> dict[str, Any]:
    """The operands that give the entries of groups, and the parameterisation."""
    size, last = group_sizes(sizes.entries, sizes.group_size)
    return {"size": size, "last": last, **sizes.param.fields}


def _finish_groups(
    bundle: Bundle, extremes: Extremes, dots: Array, logits: Sequence[Tensor], to_logits: Sequence[Tensor]
) -> Array:
    """From the groups' sums of gradient times noise, (G,): write the logits' gradients; -> the scale's, (T,)."""
    step, slope = bundle.param.step_and_slope(torch.cat(tuple(logits)))
    groups, of_group = np.array(bundle.tiling.groups), torch.from_numpy(dots)
    low, high = (torch.from_numpy(extremes[side].repeat(groups)) for side in ("low", "high"))
    parts = torch.split(slope * of_group * (high - low), bundle.tiling.groups)
    for to_logit, part in zip(to_logits, parts, strict=True):
        to_logit.copy_(part)
    return add_up((step * of_group).numpy(), np.cumsum(groups) - groups)


@np.errstate(all="ignore")  # an overflow gives inf without a warning, as in torch
def add_up(values: Array, starts: Array) -> Array:
    """The sums of segments, added up in float64."""
    return np.add.reduceat(values, starts, dtype=np.float64).astype(np.float32)
