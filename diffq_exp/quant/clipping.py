"""Ranges for a uniform grid: of all weights, or narrower where that makes the squared error of rounding smaller."""

from __future__ import annotations

import torch
from torch import Tensor

from ..stored.grids import channel_size, ranges_of

RANGES = ("minmax", "mse")
SHARES = torch.linspace(1.0, 0.1, 46).tolist()  # of the range, on both sides of the mean


def choose_ranges(weight: Tensor, top: int, ranges: str, per_channel: bool) -> Tensor:
    """(low, high) of a tensor or of each of its channels, float32 (C, 2), for levels from 0 to `top`.

    ranges: one of RANGES. "mse" tries SHARES of the whole range, and takes that with the least squared error, as
    post-training quantization usually does (Nahshan et al. 2021, arXiv 1911.07190; Banner et al. 2019, 1810.05723).
    """
    whole = ranges_of(weight, per_channel)
    if ranges == "minmax":
        return whole
    rows = weight.detach().float().reshape(-1, channel_size(weight.shape) if per_channel else weight.numel())
    mean, best, least = rows.mean(1, keepdim=True), whole, torch.full((len(rows),), torch.inf, device=rows.device)
    for share in SHARES:
        tried = mean + share * (whole - mean)
        error = _squared_error(rows, tried, top)
        best = torch.where((error < least)[:, None], tried if share < 1 else whole, best)
        least = torch.minimum(error, least)
    return best


def _squared_error(rows: Tensor, ranges: Tensor, top: int) -> Tensor:
    """The sum for each row, (C,), of rounding (C, entries) to grids over these ranges."""
    low, high = ranges[:, :1], ranges[:, 1:]
    step = ((high - low) / top).clamp(min=torch.finfo(torch.float32).tiny)
    return ((rows - low).div_(step).round_().clamp_(0, top).mul_(step).add_(low) - rows).square_().sum(1)
