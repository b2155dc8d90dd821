"""Pseudo quantization noise: the training forward of DiffQ, and its gradient in closed form.

    noisy = w + scale * step * eps,    scale = max(w) - min(w),    step: one per group,    eps fresh noise

With p = noisy - w (kept from the forward) and g the gradient that arrives, r = sum over a group of g * p gives
both gradients that are not the identity, since p is proportional to the step and to the scale:

    d/d logit = r * d ln step / d logit          d/d scale = sum(r) / scale

and the latter goes to the entries that are the tensor's extremes, shared equally between equal ones. So the
backward is one product and one reduction, and the only tensor kept besides the noisy weights is p.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .groups import mul_groups_, sum_groups

# What eps is. The gaussian has three times the variance of the uniform noise (1/4 against 1/12), as published.
NOISES: dict[str, Callable[[Tensor], Tensor]] = {
    "gaussian": lambda like: torch.randn_like(like, memory_format=torch.contiguous_format).mul_(0.5),
    "uniform": lambda like: torch.rand_like(like, memory_format=torch.contiguous_format).sub_(0.5),
}


def add_noise(weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
    """The noisy weights, of the shape and memory format of `weight`; differentiable in weight and logits.

    Noise comes from torch's global generator of the weight's device. A constant tensor gets none.
    """
    return _AddNoise.apply(weight, logits, group_size, param, noise)  # type: ignore[no-untyped-call, no-any-return]


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
        step, slope = param.step_and_slope(logits)
        low, high = torch.aminmax(weight)
        part = NOISES[noise](weight)  # (shape of weight), row-major, so that groups are slices
        mul_groups_(part.view(-1), ((high - low) * step).to(part.dtype), group_size)
        ctx.save_for_backward(weight, part, slope, low, high)
        ctx.group_size = group_size
        return weight + part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, part, slope, low, high = ctx.saved_tensors
        sums = sum_groups((grad * part).reshape(-1), ctx.group_size)  # (G,)
        grad_weight = None
        if ctx.needs_input_grad[0]:
            scale = high - low
            grad_scale = torch.where(scale > 0, sums.sum() / scale, torch.zeros_like(scale))
            grad_weight = _add_at(_add_at(grad, weight == high, grad_scale), weight == low, -grad_scale)
        return grad_weight, sums.to(slope.dtype) * slope, None, None, None


def _add_at(grad: Tensor, where: Tensor, amount: Tensor) -> Tensor:
    """`grad` with `amount` shared equally between the places marked True in `where` (there is one at least)."""
    return torch.where(where, grad + amount / where.sum(), grad)
