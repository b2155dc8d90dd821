"""Noisy weights and soft sizes by compiled kernels, for many tensors at once, as functions of autograd.

The formulas are those of ../noisy_weights.py and ../formula.py. Two packages have kernels, `cpu` and `cuda`, each
with four functions between tensors (backend.py); bundles of weights and the rules of autograd, which both share,
are here. operands.py checks the tensors. Nothing of the weights' size is kept besides the noisy weights, for the
backward makes the noise again. From one seed, CPU and GPU make the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bits import Param
from ..noise import Noise, new_key, rank
from ..noisy_weights import run_early
from .operands import checked, laid_out
from .tiles import Tiling, bundle_slices, tiling_of

BUNDLE = {"cpu": 2**21, "cuda": 2**24}  # entries of the weights in a bundle, by the devices that have kernels


@dataclass(frozen=True)
class Bundle:
    """Weights that are one node of autograd's graph, and the numbers that their noise follows from.

    noise: the kind. key: of this forward. number: of the bundle's first tile among those of all bundles. rank: of
    this process.
    """

    tiling: Tiling
    param: Param
    noise: type[Noise]
    key: int
    number: int
    rank: int


@dataclass(frozen=True)
class Sizes:
    """Logits whose widths are added up: their tiling, in groups of 1, and the entries of the weights."""

    tiling: Tiling
    param: Param
    entries: tuple[int, ...]
    group_size: int


def backend(device: torch.device) -> ModuleType:
    """The package of kernels for tensors on that device; imported now, as numba takes its time."""
    return import_module(f".{device.type}", __package__)


def add_noise_to_all(
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    group_size: int,
    param: Param,
    noise: type[Noise],
    apart: bool = False,
) -> Iterator[Tensor]:
    """The noisy weights, each in the shape and memory format of their weights; see noisy_weights.add_noise.

    `by_kernels` must hold for all weights and logits. apart: each weight is a bundle of its own, for backwards that
    go through the graph tensor by tensor; the noise is the same.
    """
    key, number, own_rank = new_key(), 0, rank()
    for some in bundle_slices(weights, 0 if apart else BUNDLE[weights[0].device.type]):
        tiling = tiling_of(tuple(weight.numel() for weight in weights[some]), group_size)
        bundle = Bundle(tiling, param, noise, key, number, own_rank)
        number += len(tiling.tiles)
        noisy: tuple[Tensor, ...] = AddNoise.apply(bundle, *logits[some], *weights[some])  # type: ignore[no-untyped-call]
        run_early(noisy[0])
        yield from noisy


class AddNoise(torch.autograd.Function):
    """A bundle, its logits, its weights -> the noisy weights."""

    @staticmethod
    def forward(ctx: Any, bundle: Bundle, *tensors: Tensor) -> tuple[Tensor, ...]:
        kernels, count = backend(tensors[0].device), len(tensors) // 2
        logits, weights = _logits_and_weights(bundle.tiling, tensors, kernels.CHANNELS_LAST)
        noisy = [torch.empty_like(weight) for weight in weights]
        ctx.extremes = kernels.add_noise(bundle, weights, logits, noisy)
        ctx.save_for_backward(*tensors)
        ctx.bundle = bundle
        ctx.set_materialize_grads(False)
        return tuple(laid_out(*pair) for pair in zip(noisy, tensors[count:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        tiling, device = ctx.bundle.tiling, ctx.saved_tensors[0].device
        kernels, wanted = backend(device), ctx.needs_input_grad[1 + len(grads) :]
        logits, weights = _logits_and_weights(tiling, ctx.saved_tensors, kernels.CHANNELS_LAST)
        ready = checked(grads, tiling.entries, device, kernels.CHANNELS_LAST)
        to_logits = [torch.empty_like(tensor) for tensor in logits]
        to_weights = [
            torch.empty_like(grad) if grad is not None and needed else None
            for grad, needed in zip(ready, wanted, strict=True)
        ]
        kernels.add_noise_backward(ctx.bundle, ctx.extremes, weights, logits, ready, to_weights, to_logits)
        used = (None if grad is None else tensor for tensor, grad in zip(to_logits, grads, strict=True))
        return None, *used, *to_weights


def _logits_and_weights(
    tiling: Tiling, tensors: Sequence[Tensor], channels_last: bool
) -> tuple[list[Any], list[Any]]:
    """The two halves of `tensors`, ready for kernels."""
    count, device = len(tiling.entries), tensors[0].device
    logits = checked(tensors[:count], tiling.groups, device)
    return logits, checked(tensors[count:], tiling.entries, device, channels_last)


class SumBits(torch.autograd.Function):
    """Logits -> the sum over all entries of their group's width; each tensor's highest logit, (T,)."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        tiling, device = tiling_of(tuple(tensor.numel() for tensor in logits), 1), logits[0].device
        ctx.sizes = Sizes(tiling, param, entries, group_size)
        ctx.save_for_backward(*logits)
        sums: tuple[Tensor, Tensor] = backend(device).sum_bits(ctx.sizes, checked(logits, tiling.entries, device))
        ctx.mark_non_differentiable(sums[1])
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        device = ctx.saved_tensors[0].device
        logits = checked(ctx.saved_tensors, ctx.sizes.tiling.entries, device)
        (factor,) = checked([grad], [1], device)
        to_logits = [torch.empty_like(tensor) for tensor in logits]
        backend(device).sum_bits_backward(ctx.sizes, logits, factor, to_logits)
        return None, None, None, *to_logits
