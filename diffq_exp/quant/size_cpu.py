"""The soft size of float32 logits in a CPU's memory: the formulas of size.py by compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import kernels
from .bits import Param
from .pieces import plan_of
from .threads import addresses, run


class SumBitsOnCPU(torch.autograd.Function):
    """Of size.py: the sum over all entries of their group's width; each tensor's highest logit, (T,)."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = tuple(one.contiguous() for one in logits)
        groups = tuple(one.numel() for one in logits)
        plan = plan_of(groups, 1)
        count = np.array(entries)
        size = np.full_like(count, group_size) if group_size else count
        of = {"size": size, "last": count - size * (np.array(groups) - 1)}
        ctx.how = {
            "pieces": plan.pieces,
            **param.fields,
            **{name: one.astype(np.float32) for name, one in of.items()},
        }
        sums, highs = np.empty((2, len(plan.pieces)), np.float32)
        run(kernels.sum_bits, logits=addresses(logits), sums=sums, highs=highs, **ctx.how)
        highest = torch.from_numpy(np.maximum.reduceat(highs, plan.tensors))
        ctx.save_for_backward(*logits)
        ctx.mark_non_differentiable(highest)
        return torch.tensor(sums.sum(dtype=np.float64), dtype=torch.float32), highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        logits = ctx.saved_tensors
        slopes = [torch.empty_like(one) for one in logits]
        tables = {"logits": addresses(logits), "grad_logits": addresses(slopes)}
        run(kernels.pass_back_bits, factor=grad.numpy(), **tables, **ctx.how)
        return None, None, None, *slopes
