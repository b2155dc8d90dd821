"""Noise for weights in a CPU's memory: the formulas of noise.py, for the tensors of a bucket in one pass.

It needs memory for two copies of the weights: eps from forward to backward, which is not written to in between; the
noisy weights, and, once their layers' backwards have let go of them, the gradients in the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .bucket import Bucket, bucket_of, cut
from .draw import fill
from .memory import Memory
from .noise import run_early

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
            yield from _add(bucket_of((len(part),), group_size), part, [weight], [one], param, memory)


def _add(
    bucket: Bucket, eps: Tensor, weights: Sequence[Tensor], logits: Sequence[Tensor], param: Param, memory: Memory
) -> tuple[Tensor, ...]:
    noisy: tuple[Tensor, ...] = _AddNoise.apply(bucket, eps, param, memory, *logits, *weights)  # type: ignore[no-untyped-call]
    run_early(noisy[0])
    return noisy


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, bucket: Bucket, eps: Tensor, param: Param, memory: Memory, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(bucket.entries)
        given, weights = tensors[:count], tensors[count:]
        logits = bucket.look(given)
        flat = bucket.look(weights) if bucket.alone else bucket.join(weights, memory)
        low, high, places = bucket.extremes(flat)
        scale = high - low
        step = param.step(logits, out=memory.empty_like(logits))
        amount = step.to(scale.dtype).mul_(bucket.to_groups(scale))  # (G,)
        ctx.save_for_backward(eps, scale, places.at, places.of, places.share, *given)
        ctx.bucket, ctx.param, ctx.memory = bucket, param, memory
        ctx.shapes = [weight.shape for weight in weights]
        ctx.set_materialize_grads(False)
        out = memory.empty_like(flat) if bucket.alone else flat
        noisy = bucket.shaped(bucket.add_scaled(flat, eps, amount, out), ctx.shapes)
        return tuple(_laid_out(one, weight, memory) for one, weight in zip(noisy, weights, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        eps, scale, at, of, share, *logits = ctx.saved_tensors
        bucket, memory, logits = ctx.bucket, ctx.memory, ctx.bucket.look(logits)
        pairs = zip(grads, ctx.shapes, strict=True)
        given = [eps.new_zeros(shape) if one is None else one for one, shape in pairs]
        flat = bucket.join(given, memory)  # it lies where the noisy weights did, if nobody holds them
        sums = bucket.dot(flat, eps, out=memory.empty(len(logits), eps.dtype))  # (G,)
        step, rise = ctx.param.step_and_rise(logits, memory.empty_like(logits), memory.empty_like(logits))
        to_scale = bucket.sum_groups(step.mul_(sums)).to(eps.dtype)  # (T,)
        to_weights = bucket.shaped(flat.index_add_(0, at, to_scale[of] * share), ctx.shapes)
        to_logits = bucket.split_groups(rise.mul_(sums).mul_(bucket.to_groups(scale)))
        both = zip((*to_logits, *to_weights), 2 * grads, strict=True)
        return *NOT_TENSORS, *(None if used is None else one for one, used in both)


def _laid_out(tensor: Tensor, like: Tensor, memory: Memory) -> Tensor:
    """A row-major tensor in the memory format of another."""
    return tensor if like.is_contiguous() else memory.empty_like(like).copy_(tensor)
