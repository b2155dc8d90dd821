"""The soft size of float32 logits in a CPU's memory: the formulas of ../size.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bits import Param
from ..pieces import group_sizes, plan_of
from ..tables import addresses, flat
from . import kernels
from .threads import run


class SumBits(torch.autograd.Function):
    """Of ../size.py: the sum over all entries of their group's width; each tensor's highest logit, (T,)."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.plan = plan = plan_of(tuple(one.numel() for one in given), 1)
        ctx.save_for_backward(*given)
        logits = flat(given, plan.counts)
        of = dict(zip(("size", "last"), group_sizes(entries, group_size), strict=True))
        ctx.how = {**param.fields, **of}
        sums, highs = np.empty((2, len(plan.pieces)), np.float32)
        run(kernels.sum_bits, plan, logits=addresses(logits), sums=sums, highs=highs, **ctx.how)
        highest = torch.from_numpy(np.maximum.reduceat(highs, plan.tensors))
        ctx.mark_non_differentiable(highest)
        total = torch.tensor(sums.sum(dtype=np.float64), dtype=torch.float32, device="cpu")
        return total, highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        logits = flat(ctx.saved_tensors, ctx.plan.counts)
        slopes = [torch.empty_like(one) for one in logits]
        tables = {"logits": addresses(logits), "grad_logits": addresses(slopes)}
        run(kernels.pass_back_bits, ctx.plan, factor=flat([grad], [1])[0].data_ptr(), **tables, **ctx.how)
        return None, None, None, *slopes
