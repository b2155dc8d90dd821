"""Pseudo quantization noise: the training forward of DiffQ, and its gradient in closed form.

    noisy = w + scale * step * eps,    scale = max(w) - min(w),    step: one per group,    eps fresh noise

With p = noisy - w (kept from the forward), g the gradient that arrives and r = sum over a group of g * p, both
gradients that are not the identity follow, since p is proportional to the step and to the scale:

    d/d logit = r / step * d step / d logit          d/d scale = sum(r) / scale

and the latter goes to the entries that are the tensor's extremes, shared equally between equal ones. So the
backward is one product and one reduction, and of the size of w only p is kept besides the noisy weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .draw import NOISES, worth_numpy
from .groups import mul_groups_, sum_groups

ROW = 1024  # entries; the places of the extremes are looked for in rows that have them


def add_noise(weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
    """The noisy weights, of the shape and memory format of `weight`; differentiable in weight and logits.

    The noise follows from torch's global generator. A constant tensor gets none.
    """
    return _AddNoise.apply(weight, logits, group_size, param, noise)  # type: ignore[no-untyped-call, no-any-return]


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
        low, high, places = _extremes(weight)
        part = NOISES[noise](weight)  # (shape of weight), row-major, so that groups are slices
        mul_groups_(part.view(-1), ((high - low) * param.step(logits)).to(part.dtype), group_size)
        ctx.save_for_backward(weight, logits, part, low, high, *places)
        ctx.group_size, ctx.param = group_size, param
        return weight + part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, logits, part, low, high, *places = ctx.saved_tensors
        sums = sum_groups((grad * part).reshape(-1), ctx.group_size)  # (G,)
        grad_weight = None
        if ctx.needs_input_grad[0]:
            scale = high - low
            amount = torch.where(scale > 0, sums.sum() / scale, torch.zeros_like(scale))
            if places:
                grad_weight = grad.clone(memory_format=torch.contiguous_format)
                _add_at(grad_weight.view(-1), places[0], -amount)
                _add_at(grad_weight.view(-1), places[1], amount)
            else:
                grad_weight = _add_where(_add_where(grad, weight == high, amount), weight == low, -amount)
        step, rise = ctx.param.step_and_rise(logits)
        return grad_weight, rise.div_(step).mul_(sums), None, None, None


def _add_at(flat: Tensor, places: Tensor, amount: Tensor) -> None:
    """Share `amount` equally between the places (weights that are not numbers have none)."""
    if len(places):
        flat.index_add_(0, places, (amount / len(places)).expand(len(places)))


def _add_where(grad: Tensor, where: Tensor, amount: Tensor) -> Tensor:
    """`grad` with `amount` shared equally between the places marked True in `where`, if there are any."""
    return torch.where(where, grad + amount / where.sum(), grad)


def _extremes(weight: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The lowest and the highest entry; where they are, (places,) each, of a large tensor in a CPU's memory.

    Elsewhere to look for them would mean waiting for the device: the backward compares all entries then.
    """
    if not worth_numpy(weight):
        return *torch.aminmax(weight), ()
    flat = weight.reshape(-1)
    full = len(flat) // ROW * ROW
    lows, highs = torch.aminmax(flat[:full].view(-1, ROW), dim=1)
    ends = torch.aminmax(torch.cat([lows, highs, flat[full:]]))
    places = (_places(flat, full, *pair) for pair in ((lows, ends.min), (highs, ends.max)))
    return ends.min, ends.max, tuple(places)


def _places(flat: Tensor, full: int, ends: Tensor, end: Tensor) -> Tensor:
    """Where `end` is: in rows that have it at their end, and in the rest after them."""
    value, entries = end.numpy(), flat.numpy()
    starts = np.flatnonzero(ends.numpy() == value) * ROW
    found = [np.flatnonzero(entries[start : start + ROW] == value) + start for start in starts]
    return torch.from_numpy(np.concatenate([*found, np.flatnonzero(entries[full:] == value) + full]))
