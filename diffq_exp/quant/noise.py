"""Pseudo quantization noise: the training forward of DiffQ, and its gradient in closed form.

    noisy = w + scale * step * eps,    scale = max(w) - min(w),    step: one per group,    eps fresh noise

With p = noisy - w (kept from the forward), g the gradient that arrives and r = sum over a group of g * p, both
gradients that are not the identity follow, since p is proportional to the step and to the scale:

    d/d logit = r * d ln step / d logit          d/d scale = sum(r) / scale

and the latter goes to the entries that are the tensor's extremes, shared equally between equal ones. So the
backward is one product and one reduction, and of the size of w only p is kept besides the noisy weights.

Here one tensor at a time, by torch alone, for any device and in one graph under torch.compile. What lies in a
CPU's memory goes through noise_cpu.py instead: the same formulas for many tensors in one pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .draw import draw
from .groups import mul_groups_, sum_groups


def add_noise(weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
    """The noisy weights, of the shape and memory format of `weight`; differentiable in weight and logits.

    The noise follows from torch's global generator. A constant tensor gets none.
    """
    return _AddNoise.apply(weight, logits, group_size, param, noise)  # type: ignore[no-untyped-call, no-any-return]


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: str) -> Tensor:
        low, high = torch.aminmax(weight)
        part = draw(noise, weight)  # (shape of weight), row-major, so that groups are slices
        mul_groups_(part.view(-1), ((high - low) * param.step(logits)).to(part.dtype), group_size)
        ctx.save_for_backward(weight, logits, part, low, high)
        ctx.group_size, ctx.param = group_size, param
        return weight + part

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, logits, part, low, high = ctx.saved_tensors
        sums = sum_groups((grad * part).reshape(-1), ctx.group_size)  # (G,)
        grad_weight = None
        if ctx.needs_input_grad[0]:
            scale = high - low
            amount = torch.where(scale > 0, sums.sum() / scale, torch.zeros_like(scale))
            grad_weight = _share(_share(grad, weight == high, amount), weight == low, -amount)
        return grad_weight, ctx.param.log_step_rise(logits).mul_(sums), None, None, None


def _share(grad: Tensor, where: Tensor, amount: Tensor) -> Tensor:
    """`grad` with `amount` shared equally between the places marked True in `where`, if there are any."""
    return torch.where(where, grad + amount / where.sum(), grad)
