"""Noise for weights in a CPU's memory: the formulas of noise.py, for the tensors of a bucket in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .bucket import Bucket, Places, bucket_of, cut
from .draw import fill
from .groups import add_scaled_groups
from .memory import Memory

NOT_TENSORS = (None,) * 4  # the gradients of arguments of _AddNoise


def add_noise_to_all(
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    group_size: int,
    param: Param,
    noise: str,
    memory: Memory,
    apart: bool = False,
) -> Iterator[Tensor]:
    """The noisy weights, one by one; each of the shape and memory format of its weight, see noise.add_noise.

    All must be `in_cpu_memory`. memory: where those of large weights come from. apart: each has a node of its own
    in autograd's graph, for backwards that go through it tensor by tensor; the noise is the same.
    """
    slices = list(cut(weights, logits))
    entries = [tuple(weight.numel() for weight in weights[some]) for some in slices]
    eps = [memory.empty(sum(of), weights[some.start].dtype) for some, of in zip(slices, entries, strict=True)]
    fill(noise, eps)
    for some, of, flat in zip(slices, entries, eps, strict=True):
        if len(of) == 1 or not apart:
            yield from _add(bucket_of(of, group_size), flat, weights[some], logits[some], param, memory)
            continue
        for part, weight, one in zip(torch.split(flat, list(of)), weights[some], logits[some], strict=True):
            yield from _add(bucket_of((len(part),), group_size), part.clone(), [weight], [one], param, memory)


def _add(
    bucket: Bucket, eps: Tensor, weights: Sequence[Tensor], logits: Sequence[Tensor], param: Param, memory: Memory
) -> tuple[Tensor, ...]:
    again = weights if bucket.alone else ()  # for the gradient of the extremes alone
    noisy: tuple[Tensor, ...] = _AddNoise.apply(bucket, eps, param, memory, *logits, *again, *weights)  # type: ignore[no-untyped-call]
    return noisy


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bucket: Bucket, eps: Tensor, param: Param, memory: Memory, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(bucket.entries)
        logits, weights = bucket.join(tensors[:count]), tensors[-count:]
        flat = bucket.join(weights)
        low, high, places = bucket.extremes(flat)
        scale = high - low
        step = param.step(logits, out=memory.empty_like(logits))
        amount = step.to(scale.dtype).mul_(bucket.to_groups(scale))  # (G,)
        ctx.save_for_backward(logits, eps, scale, places.at, places.of, places.share)
        ctx.bucket, ctx.param, ctx.memory = bucket, param, memory
        ctx.shapes = [weight.shape for weight in weights]
        ctx.set_materialize_grads(False)
        if bucket.alone:
            return (_add_alone(weights[0], flat, eps, amount, bucket.group_size, memory),)
        parts = bucket.split(bucket.mul_(eps.clone(), amount))
        pairs = zip(parts, weights, strict=True)
        return tuple(torch._foreach_add(weights, [part.view(weight.shape) for part, weight in pairs]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, eps, scale, *where = ctx.saved_tensors
        bucket, places = ctx.bucket, Places(*where)
        pairs = zip(grads, ctx.shapes, strict=True)
        given = [eps.new_zeros(shape) if one is None else one for one, shape in pairs]
        flat = bucket.join(given)
        sums = bucket.dot(flat, eps, out=ctx.memory.empty(len(logits), eps.dtype))  # (G,)
        step, rise = ctx.param.step_and_rise(logits, *(ctx.memory.empty_like(logits) for _ in range(2)))
        to_scale = bucket.sum_groups(step.mul_(sums)).to(eps.dtype)  # (T,)
        to_ends = to_scale[places.of].mul_(places.share)
        to_logits = bucket.split_groups(rise.mul_(sums).mul_(bucket.to_groups(scale)))
        if bucket.alone:
            return *NOT_TENSORS, *to_logits, _sparse(places.at, to_ends, ctx.shapes[0]), given[0]
        parts = bucket.split(flat.index_add_(0, places.at, to_ends))
        to_weights = [one.view(shape) for one, shape in zip(parts, ctx.shapes, strict=True)]
        both = (*to_logits, *to_weights)
        return *NOT_TENSORS, *(None if used is None else one for one, used in zip(both, 2 * grads, strict=True))


def _add_alone(
    weight: Tensor, flat: Tensor, eps: Tensor, amount: Tensor, group_size: int, memory: Memory
) -> Tensor:
    """The noisy weights of a large tensor, laid out as it is; flat: its entries, row-major."""
    noisy = memory.empty_like(weight)
    if noisy.is_contiguous():
        add_scaled_groups(flat, eps, amount, group_size, out=noisy.view(-1))
        return noisy
    return noisy.copy_(add_scaled_groups(flat, eps, amount, group_size, out=flat).view(weight.shape))


def _sparse(at: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of zeros but for `values` (P,) at the flat places `at` (P,).

    As a gradient beside a dense one, autograd adds it in place where nobody else holds the dense one: that spares
    a copy of the weight's gradient.
    """
    index = torch.from_numpy(np.array(np.unravel_index(at.numpy(), shape)))  # torch's would import sympy
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False)
