"""Noise for weights in a CPU's memory: the formulas of noise.py by compiled kernels, for many tensors at once.

Besides the noisy weights nothing of their size is kept: the backward draws the noise again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import kernels
from .bits import Param
from .draw import Array, cells_of, new_key, rank
from .groups import together
from .noise import run_early
from .pieces import Plan, plan_of
from .threads import addresses, flat, run


@dataclass(frozen=True)
class _How:
    """What kernels are told of all pieces. number: of the first one, among those of all tensors of a forward."""

    plan: Plan
    param: Param
    cells: Array
    key: int
    number: int
    rank: int

    def run(self, kernel: Any, **fields: Any) -> None:
        noise: dict[str, Any] = {"cells": self.cells, "key": self.key, "number": self.number, "rank": self.rank}
        run(kernel, self.plan, group_size=self.plan.size, **self.param.fields, **noise, **fields)


def add_noise_to_all(
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    group_size: int,
    param: Param,
    noise: str,
    apart: bool = False,
) -> Iterator[Tensor]:
    """The noisy weights, one by one; each of the shape and memory format of its weight, see noise.add_noise.

    All must be `in_cpu_memory`. apart: each has a node of its own in autograd's graph, for backwards that go
    through it tensor by tensor; the noise is the same.
    """
    cells, key, number, own = cells_of(noise), new_key(), 0, rank()
    runs = (slice(i, i + 1) for i in range(len(weights))) if apart else together(weights)
    for some in runs:
        plan = plan_of(tuple(one.numel() for one in weights[some]), group_size)
        how = _How(plan, param, cells, key, number, own)
        number += len(plan.pieces)
        noisy: tuple[Tensor, ...] = _AddNoise.apply(how, *logits[some], *weights[some])  # type: ignore[no-untyped-call]
        run_early(noisy[0])
        yield from noisy


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, how: _How, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan, count = how.plan, len(how.plan.counts)
        logits, weights = flat(tensors[:count], plan.groups), flat(tensors[count:], plan.counts)
        noisy = [torch.empty_like(weight) for weight in weights]
        lows, highs, at_low, at_high = np.empty((4, len(plan.pieces)), np.float32)
        how.run(kernels.look, weight=addresses(weights), lows=lows, highs=highs)
        low, high = np.minimum.reduceat(lows, plan.tensors), np.maximum.reduceat(highs, plan.tensors)
        extremes = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
        given = {"weight": addresses(weights), "logits": addresses(logits), "noisy": addresses(noisy)}
        how.run(kernels.add_noise, **given, **extremes, lows=lows, highs=highs)
        ctx.save_for_backward(*tensors)
        ctx.how, ctx.extremes = how, extremes
        ctx.set_materialize_grads(False)
        return tuple(_laid_out(*pair) for pair in zip(noisy, tensors[count:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        how: _How = ctx.how
        plan, extremes = how.plan, ctx.extremes
        saved = ctx.saved_tensors
        logits, weights = flat(saved[: len(grads)], plan.groups), flat(saved[len(grads) :], plan.counts)
        given = flat(grads, plan.counts)
        to_weights = [None if one is None else torch.empty_like(one) for one in given]
        to_logits = [torch.empty_like(one) for one in logits]
        grad = {"grad": addresses(given), "grad_weight": addresses(to_weights)}
        tables = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
        sums = np.empty(len(plan.pieces), np.float32)
        how.run(kernels.pass_back, **grad, **tables, **extremes, sums=sums)
        if plan.split:  # sums of gradient times noise in parts of groups
            to_scale = _finish(how, extremes, _add_up(sums, plan.parts), logits, to_logits)
        else:
            to_scale = _add_up(sums, plan.tensors)
        low, high = (_add_up(extremes[side], plan.tensors) for side in ("at_low", "at_high"))
        shares = {"to_low": -to_scale / np.maximum(low, 1), "to_high": to_scale / np.maximum(high, 1)}
        how.run(kernels.share, weight=addresses(weights), **grad, **extremes, **shares)
        return (
            None,
            *(one if used is not None else None for one, used in zip(to_logits, grads, strict=True)),
            *to_weights,
        )


def _finish(
    how: _How, extremes: dict[str, Array], dots: Array, logits: Sequence[Tensor], to_logits: Sequence[Tensor]
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


def _laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A row-major tensor in the memory format of another."""
    return tensor if like.is_contiguous() else torch.empty_like(like).copy_(tensor)
