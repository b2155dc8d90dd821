"""Noise and sizes by compiled kernels, for many tensors at once: the formulas of noise.py and size.py.

Two packages have kernels, `cpu` and `cuda`, each with four functions between tensors; here is what they share: what
goes together, and what autograd has to know. What tensors must be is in tables.py. Besides the noisy weights
nothing of their size is kept, for the backward draws the noise again. From one seed, CPU and GPU draw the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bits import Param
from ..noise import new_key, rank
from ..noisy_weights import run_early
from .operands import checked, laid_out
from .tiles import Plan, plan_of, together

BUNDLE = {"cpu": 2**21, "cuda": 2**24}  # entries of weights that go together, by the devices that have kernels


@dataclass(frozen=True)
class Bundle:
    """Weights that go together, as one node of autograd's graph, and what their noise follows from.

    key: of this forward. number: of the bundle's first piece among those of all bundles. rank: of this process.
    """

    plan: Plan
    param: Param
    noise: str
    key: int
    number: int
    rank: int


@dataclass(frozen=True)
class Sizes:
    """Logits whose widths are added up: a plan of theirs, in groups of 1, and the entries of the weights."""

    plan: Plan
    param: Param
    entries: tuple[int, ...]
    group_size: int


def backend(device: torch.device) -> Any:
    """The package of kernels for tensors on that device; imported now, as numba takes its time."""
    return import_module(f".{device.type}", __package__)


def add_noise_to_all(
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    group_size: int,
    param: Param,
    noise: str,
    apart: bool = False,
) -> Iterator[Tensor]:
    """The noisy weights, one by one; each of the shape and memory format of its weight, see noise.add_noise.

    `by_kernels` must hold for all weights and logits. apart: each weight is a bundle of its own, for backwards that
    go through the graph tensor by tensor; the noise is the same.
    """
    key, number, own = new_key(), 0, rank()
    for some in together(weights, 0 if apart else BUNDLE[weights[0].device.type]):
        plan = plan_of(tuple(one.numel() for one in weights[some]), group_size)
        bundle = Bundle(plan, param, noise, key, number, own)
        number += len(plan.pieces)
        noisy: tuple[Tensor, ...] = AddNoise.apply(bundle, *logits[some], *weights[some])  # type: ignore[no-untyped-call]
        run_early(noisy[0])
        yield from noisy


class AddNoise(torch.autograd.Function):
    """A bundle, its logits, its weights -> the noisy weights."""

    @staticmethod
    def forward(ctx: Any, bundle: Bundle, *tensors: Tensor) -> tuple[Tensor, ...]:
        kernels, count = backend(tensors[0].device), len(tensors) // 2
        logits, weights = _of(bundle.plan, tensors, kernels.CHANNELS_LAST)
        noisy = [torch.empty_like(one) for one in weights]
        ctx.found = kernels.add_noise(bundle, weights, logits, noisy)
        ctx.save_for_backward(*tensors)
        ctx.bundle = bundle
        ctx.set_materialize_grads(False)
        return tuple(laid_out(*pair) for pair in zip(noisy, tensors[count:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        plan, device = ctx.bundle.plan, ctx.saved_tensors[0].device
        kernels, wanted = backend(device), ctx.needs_input_grad[1 + len(grads) :]
        logits, weights = _of(plan, ctx.saved_tensors, kernels.CHANNELS_LAST)
        given = checked(grads, plan.entries, device, kernels.CHANNELS_LAST)
        to_logits = [torch.empty_like(one) for one in logits]
        to_weights = [
            None if one is None or not each else torch.empty_like(one)
            for one, each in zip(given, wanted, strict=True)
        ]
        kernels.pass_back(ctx.bundle, ctx.found, weights, logits, given, to_weights, to_logits)
        used = (None if grad is None else one for one, grad in zip(to_logits, grads, strict=True))
        return None, *used, *to_weights


def _of(plan: Plan, tensors: Sequence[Tensor], channels_last: bool) -> tuple[list[Any], list[Any]]:
    """The logits and the weights among them."""
    count, device = len(plan.entries), tensors[0].device
    logits = checked(tensors[:count], plan.groups, device)
    return logits, checked(tensors[count:], plan.entries, device, channels_last)


class SumBits(torch.autograd.Function):
    """Logits -> the sum over all entries of their group's width; each tensor's highest logit, (T,)."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        plan, device = plan_of(tuple(one.numel() for one in given), 1), given[0].device
        ctx.sizes = Sizes(plan, param, entries, group_size)
        ctx.save_for_backward(*given)
        both: tuple[Tensor, Tensor] = backend(device).sum_bits(ctx.sizes, checked(given, plan.entries, device))
        ctx.mark_non_differentiable(both[1])
        return both

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        device = ctx.saved_tensors[0].device
        logits = checked(ctx.saved_tensors, ctx.sizes.plan.entries, device)
        (factor,) = checked([grad], [1], device)
        to_logits = [torch.empty_like(one) for one in logits]
        backend(device).pass_back_bits(ctx.sizes, logits, factor, to_logits)
        return None, None, None, *to_logits
