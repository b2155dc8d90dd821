"""Noise for weights in a CPU's memory: the formulas of noise.py, for the tensors of a bucket in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .bucket import Bucket, Places, bucket_of, cut
from .draw import fill
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
    """eps, (N,), becomes noisy - w in place."""

    @staticmethod
    def forward(
        ctx: Any, bucket: Bucket, eps: Tensor, param: Param, memory: Memory, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(bucket.entries)
        logits, weights = bucket.join(tensors[:count]), tensors[-count:]
        low, high, places = bucket.extremes(bucket.join(weights))
        scale = high - low
        steps = param.step(logits, out=memory.empty_like(logits))
        part = bucket.mul_(eps, steps.to(scale.dtype).mul_(bucket.to_groups(scale)))
        ctx.save_for_backward(logits, part, scale, places.at, places.of, places.share)
        ctx.bucket, ctx.param, ctx.memory = bucket, param, memory
        ctx.shapes = [weight.shape for weight in weights]
        ctx.set_materialize_grads(False)
        if bucket.alone:
            weight = weights[0]
            return (torch.add(weight, part.view(weight.shape), out=memory.empty_like(weight)),)
        parts = [one.view(weight.shape) for one, weight in zip(bucket.split(part), weights, strict=True)]
        return tuple(torch._foreach_add(weights, parts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        logits, part, scale, *where = ctx.saved_tensors
        bucket, places = ctx.bucket, Places(*where)
        pairs = zip(grads, ctx.shapes, strict=True)
        given = [part.new_zeros(shape) if one is None else one for one, shape in pairs]
        flat = bucket.join(given)
        sums = bucket.dot(flat, part, out=ctx.memory.empty(len(logits), part.dtype))  # (G,)
        to_scale = torch.where(scale > 0, bucket.sum_groups(sums) / scale, torch.zeros_like(scale))  # (T,)
        to_ends = to_scale[places.of].mul_(places.share)
        sums.mul_(ctx.param.log_step_rise(logits))
        to_logits = bucket.split_groups(sums.to(logits.dtype))
        if bucket.alone:
            return *NOT_TENSORS, *to_logits, _sparse(places.at, to_ends, ctx.shapes[0]), given[0]
        parts = bucket.split(flat.index_add_(0, places.at, to_ends))
        to_weights = [one.view(shape) for one, shape in zip(parts, ctx.shapes, strict=True)]
        both = (*to_logits, *to_weights)
        return *NOT_TENSORS, *(None if used is None else one for one, used in zip(both, 2 * grads, strict=True))


def _sparse(at: Tensor, values: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of zeros but for `values` (P,) at the flat places `at` (P,).

    As a gradient beside a dense one, autograd adds it in place where nobody else holds the dense one: that spares
    a copy of the weight's gradient.
    """
    index = torch.stack(torch.unravel_index(at, shape))
    return torch.sparse_coo_tensor(index, values, shape, check_invariants=False)
