"""The soft size of logits in a GPU's memory; see ../compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..autograd import Sizes
from ..operands import addresses
from ..tiles import group_sizes
from . import kernels
from .launch import launch, tables_of, upload


def sum_bits(sizes: Sizes, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The bits of all entries, (); each tensor's highest logit, (T,)."""
    count, device = len(sizes.plan.pieces), logits[0].device
    sums, highs = (torch.empty(count, dtype=kind, device=device) for kind in (torch.float32, torch.int32))
    low, high = (torch.empty(len(logits), dtype=torch.float32, device=device) for _ in range(2))
    fields = _told(sizes, device) | upload(device, {"logits": addresses(logits)}) | {"sums": sums, "highs": highs}
    launch(kernels.sum_bits, count, fields)
    launch(kernels.extremes, len(logits), {**fields, "lows": highs, "low": low, "high": high})  # low: of no use
    return sums.sum(dtype=torch.float64).float(), high


def pass_back_bits(sizes: Sizes, logits: Sequence[Tensor], factor: Tensor, to_logits: Sequence[Tensor]) -> None:
    """Write the gradient of `factor`, (), times the bits."""
    told = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    fields = _told(sizes, factor.device) | upload(factor.device, told) | {"factor": factor}
    launch(kernels.pass_back_bits, len(sizes.plan.pieces), fields)


def _told(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    size, last = _sizes_on(device, sizes.entries, sizes.group_size)
    return {**tables_of(sizes.plan, device), "size": size, "last": last, **sizes.param.fields}


@lru_cache(maxsize=256)
def _sizes_on(device: torch.device, entries: tuple[int, ...], group_size: int) -> tuple[Tensor, Tensor]:
    size, last = (torch.from_numpy(one).to(device) for one in group_sizes(entries, group_size))
    return size, last
