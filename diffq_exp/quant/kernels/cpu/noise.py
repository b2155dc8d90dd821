"""Noise for weights in a CPU's memory; see ../compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...noise import Array, cells_of
from ..autograd import Bundle
from ..operands import addresses
from . import kernels
from .threads import run

Found = dict[str, Array]  # low, high: extremes of tensors, (T,); at_low, at_high: how many in each piece, (P,)


def add_noise(
    bundle: Bundle, weights: Sequence[Tensor], logits: Sequence[Tensor], noisy: Sequence[Tensor]
) -> Found:
    """Write the noisy weights."""
    plan, weight = bundle.plan, addresses(weights)
    lows, highs, at_low, at_high = np.empty((4, len(plan.pieces)), np.float32)
    run(kernels.look, plan, weight=weight, lows=lows, highs=highs)
    low, high = np.minimum.reduceat(lows, plan.first_of_tensor), np.maximum.reduceat(highs, plan.first_of_tensor)
    found = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
    tables = {"weight": weight, "logits": addresses(logits), "noisy": addresses(noisy)}
    run(kernels.add_noise, plan, **_drawn(bundle), **tables, **found, lows=lows, highs=highs)
    return found


def pass_back(
    bundle: Bundle,
    found: Found,
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    to_weights: Sequence[Tensor | None],
    to_logits: Sequence[Tensor],
) -> None:
    """Write the gradients, but for those that are None; of what `add_noise` found."""
    plan = bundle.plan
    grad = {"grad": addresses(grads), "grad_weight": addresses(to_weights)}
    tables = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    sums = np.empty(len(plan.pieces), np.float32)
    run(kernels.pass_back, plan, **_drawn(bundle), **grad, **tables, **found, sums=sums)
    if plan.split:  # sums of gradient times noise in parts of groups
        to_scale = _finish(bundle, found, _add_up(sums, plan.first_of_group), logits, to_logits)
    else:
        to_scale = _add_up(sums, plan.first_of_tensor)
    low, high = (_add_up(found[side], plan.first_of_tensor) for side in ("at_low", "at_high"))
    shares = {"to_low": -to_scale / np.maximum(low, 1), "to_high": to_scale / np.maximum(high, 1)}
    run(kernels.share, plan, weight=addresses(weights), grad_weight=grad["grad_weight"], **found, **shares)


def _drawn(bundle: Bundle) -> dict[str, Any]:
    """What kernels need to draw noise and to know its size."""
    noise = {"cells": cells_of(bundle.noise), "key": bundle.key, "number": bundle.number, "rank": bundle.rank}
    return {**noise, "group_size": bundle.plan.group_size, **bundle.param.fields}


def _finish(
    bundle: Bundle, found: Found, dots: Array, logits: Sequence[Tensor], to_logits: Sequence[Tensor]
) -> Array:
    """From the groups' sums of gradient times noise, (G,): write the logits' gradients; -> the scale's, (T,)."""
    step, slope = bundle.param.step_and_slope(torch.cat(tuple(logits)))
    groups, of_group = np.array(bundle.plan.groups), torch.from_numpy(dots)
    low, high = (torch.from_numpy(found[side].repeat(groups)) for side in ("low", "high"))
    parts = torch.split(slope * of_group * (high - low), bundle.plan.groups)
    for one, part in zip(to_logits, parts, strict=True):
        one.copy_(part)
    return _add_up((step * of_group).numpy(), np.cumsum(groups) - groups)


@np.errstate(all="ignore")  # an overflow gives inf without a warning, as in torch
def _add_up(values: Array, starts: Array) -> Array:
    """The sums of segments, added up in float64."""
    return np.add.reduceat(values, starts, dtype=np.float64).astype(np.float32)
