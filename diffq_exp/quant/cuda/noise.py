"""Noise for weights in a GPU's memory; see compiled.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compiled import How
from ..tables import addresses, flat, laid_out
from . import kernels
from .launch import cells_on, formats, launch, tables_of, tile_of, upload


class AddNoise(torch.autograd.Function):
    """How, logits, weights -> the noisy weights."""

    @staticmethod
    def forward(ctx: Any, how: How, *tensors: Tensor) -> tuple[Tensor, ...]:
        plan, device, count = how.plan, tensors[0].device, len(how.plan.counts)
        pieces, starts, _ = tables_of(plan, device)
        logits = flat(tensors[:count], plan.groups, device)
        weights = flat(tensors[count:], plan.counts, device, channels_last=True)
        noisy = [torch.empty_like(one) for one in weights]
        told = (addresses(weights), *formats(weights), addresses(logits), addresses(noisy))
        weight, channels, inner, logit, new = upload(device, *told)
        lows, highs, at_low, at_high = (pieces.new_empty(len(pieces), dtype=torch.int32) for _ in range(4))
        low, high = (pieces.new_empty(count, dtype=torch.float32) for _ in range(2))
        launch(kernels.look, len(pieces), pieces, weight, lows, highs)
        launch(kernels.extremes, count, starts, lows, highs, low, high)
        given, found = (pieces, weight, channels, inner, logit, new), (low, high, at_low, at_high)
        launch(kernels.add_noise, len(pieces), *given, *found, *_drawn(how, device), **tile_of(plan))
        ctx.save_for_backward(*tensors)
        ctx.how, ctx.found = how, found
        ctx.set_materialize_grads(False)
        return tuple(laid_out(*pair) for pair in zip(noisy, tensors[count:], strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        how: How = ctx.how
        plan, tensors = how.plan, ctx.saved_tensors
        device, count, (low, high, at_low, at_high) = tensors[0].device, len(grads), ctx.found
        pieces, starts, parts = tables_of(plan, device)
        logits = flat(tensors[:count], plan.groups, device)
        weights = flat(tensors[count:], plan.counts, device, channels_last=True)
        given = flat(grads, plan.counts, device, channels_last=True)
        to_weights = [None if one is None else torch.empty_like(one) for one in given]
        to_logits = [torch.empty_like(one) for one in logits]
        told = (addresses(one) for one in (weights, given, logits, to_weights, to_logits))
        rows = upload(device, *formats(weights), *formats(given), *told)
        weight_format, grad_format, (weight, grad, logit, grad_weight, grad_logits) = rows[:2], rows[2:4], rows[4:]
        to_scale = low.new_empty(len(pieces))
        read, written = (pieces, grad, *grad_format, logit), (grad_weight, grad_logits, low, high, to_scale)
        drawn, tile = _drawn(how, device), tile_of(plan)
        launch(kernels.pass_back, len(pieces), *read, *written, *drawn, **tile)
        if plan.split:
            sums, to_scale = to_scale, torch.zeros_like(to_scale)
            read, written = (pieces, parts, grad, logit), (grad_logits, low, high, sums, to_scale)
            launch(kernels.finish, len(plan.parts), *read, *written, *how.param.fields.values())
        read = (pieces, starts, weight, *weight_format, grad_weight, *grad_format)
        launch(kernels.share, len(pieces), *read, low, high, at_low, at_high, to_scale)
        return (
            None,
            *(one if used is not None else None for one, used in zip(to_logits, grads, strict=True)),
            *to_weights,
        )


def _drawn(how: How, device: torch.device) -> tuple[Any, ...]:
    """What kernels need to draw noise and to know its size."""
    return cells_on(device, how.noise), how.key, how.number, how.rank, *how.param.fields.values()
