"""The soft size of logits in a GPU's memory: the formulas of ../size.py."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bits import Param
from ..pieces import group_sizes, plan_of
from ..tables import addresses, flat
from . import kernels
from .launch import launch, tables_of, upload


class SumBits(torch.autograd.Function):
    """Of ../size.py: the sum over all entries of their group's width; each tensor's highest logit, (T,)."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.plan = plan = plan_of(tuple(one.numel() for one in given), 1)
        ctx.save_for_backward(*given)
        device = given[0].device
        logits = flat(given, plan.counts, device)
        pieces, starts, _ = tables_of(plan, device)
        ctx.how = _sizes_on(device, entries, group_size), tuple(param.fields.values())
        (logit,) = upload(device, addresses(logits))
        sums, highs = (
            pieces.new_empty(len(pieces), dtype=torch.float32),
            pieces.new_empty(len(pieces), dtype=torch.int32),
        )
        launch(kernels.sum_bits, len(pieces), pieces, starts, logit, *ctx.how[0], sums, highs, *ctx.how[1])
        highest = sums.new_empty(len(given))
        launch(kernels.extremes, len(given), starts, highs, highs, torch.empty_like(highest), highest)
        ctx.mark_non_differentiable(highest)
        return sums.sum(dtype=torch.float64).float(), highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        device = grad.device
        pieces, starts, _ = tables_of(ctx.plan, device)
        logits = flat(ctx.saved_tensors, ctx.plan.counts, device)
        slopes = [torch.empty_like(one) for one in logits]
        logit, to = upload(device, addresses(logits), addresses(slopes))
        (factor,) = flat([grad], [1], device)
        launch(kernels.pass_back_bits, len(pieces), pieces, starts, logit, *ctx.how[0], factor, to, *ctx.how[1])
        return None, None, None, *slopes


@lru_cache(maxsize=256)
def _sizes_on(device: torch.device, entries: tuple[int, ...], group_size: int) -> tuple[Tensor, ...]:
    """How many entries groups have, and the last one of each tensor, float32 (T,) each."""
    return tuple(torch.from_numpy(one).to(device) for one in group_sizes(entries, group_size))
