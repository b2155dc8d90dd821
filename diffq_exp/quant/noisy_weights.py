"""Pseudo quantization noise: the training forward of DiffQ, and its gradient in closed form.

    noisy = w + scale * step * eps,    scale = max(w) - min(w),    step: one per group,    eps fresh noise

With g the gradient that arrives and r = sum over a group of g * eps, both gradients that are no identity follow:

    d/d logit = r * scale * d step / d logit          d/d scale = sum over the groups of r * step

and the latter goes to the entries that are the tensor's extremes, shared equally between equal ones. So the
backward is one product and one reduction, and of the size of w only eps is kept besides the noisy weights.

Here by torch, for one tensor at a time: for any noise, device and dtype, and in one graph under torch.compile.
float32 in the memory of a CPU or of a GPU, with a shipped noise, goes through kernels/: the same formulas in
compiled loops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..stored.groups import spread_groups, sum_groups
from .bits import Param, logits_of
from .noise import Noise, draw

FIRST = 2**62  # in autograd's order, in which the highest number comes first


def add_noise(weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: Noise) -> Tensor:
    """The noisy weights, of the shape and memory format of `weight`; differentiable in weight and logits.

    The noise follows from torch's global generator. A constant tensor gets none.
    """
    noisy: Tensor = _AddNoise.apply(weight, logits, group_size, param, noise)  # type: ignore[no-untyped-call]
    if not torch.compiler.is_compiling():
        run_early(noisy)
    return noisy


def add_fading_noise(weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: Noise) -> Tensor:
    """`add_noise` for widths b that may be below one bit. There, weights with the noise of one bit fade to `empty`,
    the value of a group of 0 bits:

        empty + min(b, 1) (w + scale * step(max(b, 1)) * eps - empty)
    """
    low, high = torch.aminmax(weight.detach())
    empty = torch.zeros_like(low).clamp(low, high)
    one_bit = float(logits_of(torch.ones(()), param, margin=1e-4))
    noisy = add_noise(weight, logits.clamp(min=one_bit), group_size, param, noise)
    share = spread_groups(param.bits(logits).clamp(max=1), weight.numel(), group_size).view(weight.shape)
    return empty + share.to(weight.dtype) * (noisy - empty)


def run_early(noisy: Tensor) -> None:
    """See that the backward of the node that made `noisy` runs as soon as its gradient is there.

    Of the nodes that are ready, autograd runs first the one that the forward ran last. So the noise, which comes
    before all layers, would wait for all of them: all gradients in memory, none sent in distributed training.
    """
    node: object = noisy.grad_fn
    if hasattr(node, "_set_sequence_nr"):  # not in the oldest versions of torch that are supported
        node._set_sequence_nr(FIRST)


class _AddNoise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, logits: Tensor, group_size: int, param: Param, noise: Noise) -> Tensor:
        low, high = torch.aminmax(weight)
        group_steps = ((high - low) * param.step(logits)).to(weight.dtype)  # (G,)
        step = spread_groups(group_steps, weight.numel(), group_size).view(weight.shape)
        eps = draw(noise, weight, step)
        ctx.save_for_backward(weight, logits, eps, low, high)
        ctx.group_size, ctx.param = group_size, param
        return weight + step * eps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, logits, eps, low, high = ctx.saved_tensors
        if not torch.compiler.is_compiling() and grad.is_sparse:  # of an nn.Embedding(sparse=True)
            grad = grad.to_dense()
        sums = sum_groups((grad * eps).reshape(-1), ctx.group_size)  # (G,)
        step, slope = ctx.param.step_and_slope(logits)
        grad_weight = None
        if ctx.needs_input_grad[0]:
            amount = torch.where(high > low, (step * sums).sum(), torch.zeros_like(low))
            grad_weight = _share(_share(grad, weight == high, amount), weight == low, -amount)
        return grad_weight, slope.mul_(sums).mul_(high - low), None, None, None


def _share(grad: Tensor, where: Tensor, amount: Tensor) -> Tensor:
    """`grad` with `amount` shared equally between the places marked True in `where`, if there are any."""
    return torch.where(where, grad + amount / where.sum(), grad)
