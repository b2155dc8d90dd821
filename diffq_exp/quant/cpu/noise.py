"""Noise for weights in a CPU's memory; see ../compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compiled import How
from ..draw import Array, cells_of
from ..tables import addresses, flat, laid_out
from . import kernels
from .threads import run


def run_noise(kernel: Any, how: How, **fields: Any) -> None:
    """Run a kernel that draws noise, or goes with one that does."""
    noise: dict[str, Any] = {"cells": cells_of(how.noise), "key": how.key, "number": how.number, "rank": how.rank}
    run(kernel, how.plan, group_size=how.plan.size, **how.param.fields, **noise, **fields)


class AddNoise(torch.autograd.Function):
    """How, logits, weights -> the noisy weights."""

    @staticmethod
    def forward(ctx: Any, how: How, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan, count = how.plan, len(how.plan.counts)
        logits, weights = flat(tensors[:count], plan.groups), flat(tensors[count:], plan.counts)
        noisy = [torch.empty_like(weight) for weight in weights]
        lows, highs, at_low, at_high = np.empty((4, len(plan.pieces)), np.float32)
        run_noise(kernels.look, how, weight=addresses(weights), lows=lows, highs=highs)
        low, high = np.minimum.reduceat(lows, plan.tensors), np.maximum.reduceat(highs, plan.tensors)
        extremes = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
        given = {"weight": addresses(weights), "logits": addresses(logits), "noisy": addresses(noisy)}
        run_noise(kernels.add_noise, how, **given, **extremes, lows=lows, highs=highs)
        ctx.save_for_backward(*tensors)
        ctx.how, ctx.extremes = how, extremes
        ctx.set_materialize_grads(False)
        return tuple(laid_out(*pair) for pair in zip(noisy, tensors[count:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        how: How = ctx.how
        plan, extremes = how.plan, ctx.extremes
        saved = ctx.saved_tensors
        logits, weights = flat(saved[: len(grads)], plan.groups), flat(saved[len(grads) :], plan.counts)
        given = flat(grads, plan.counts)
        to_weights = [None if one is None else torch.empty_like(one) for one in given]
        to_logits = [torch.empty_like(one) for one in logits]
        grad = {"grad": addresses(given), "grad_weight": addresses(to_weights)}
        tables = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
        sums = np.empty(len(plan.pieces), np.float32)
        run_noise(kernels.pass_back, how, **grad, **tables, **extremes, sums=sums)
        if plan.split:  # sums of gradient times noise in parts of groups
            to_scale = _finish(how, extremes, _add_up(sums, plan.parts), logits, to_logits)
        else:
            to_scale = _add_up(sums, plan.tensors)
        low, high = (_add_up(extremes[side], plan.tensors) for side in ("at_low", "at_high"))
        shares = {"to_low": -to_scale / np.maximum(low, 1), "to_high": to_scale / np.maximum(high, 1)}
        run_noise(kernels.share, how, weight=addresses(weights), **grad, **extremes, **shares)
        return (
            None,
            *(one if used is not None else None for one, used in zip(to_logits, grads, strict=True)),
            *to_weights,
        )


def _finish(
    how: How, extremes: dict[str, Array], dots: Array, logits: Sequence[Tensor], to_logits: Sequence[Tensor]
) -> Array:
    """From the groups' sums of gradient times noise, (G,), the gradients -> `to_logits`; -> of the scale, (T,)."""
    step, slope = how.param.step_and_slope(torch.cat(tuple(logits)))
    groups, of_group = np.array(how.plan.groups), torch.from_numpy(dots)
    low, high = (torch.from_numpy(extremes[side].repeat(groups)) for side in ("low", "high"))
    parts = torch.split(slope * of_group * (high - low), how.plan.groups)
    for one, part in zip(to_logits, parts, strict=True):
        one.copy_(part)
    return _add_up((step * of_group).numpy(), np.cumsum(groups) - groups)


@np.errstate(all="ignore")
def _add_up(values: Array, starts: Array) -> Array:
    """The sums of segments, added up in float64; infinities are as good as others, as in torch."""
    return np.add.reduceat(values, starts, dtype=np.float64).astype(np.float32)
