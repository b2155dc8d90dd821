"""The four functions between tensors in a GPU's memory; ../autograd.py calls them, kernels.py has their loops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..autograd import Bundle, Sizes
from ..operands import addresses
from ..tiles import group_sizes
from . import kernels
from .launch import block_of, cells_on, formats, launch, tile_operands, upload

CHANNELS_LAST = True  # whether tensors of that memory format may stay as they are

Extremes = dict[str, Tensor]  # low, high: of tensors, (T,); at_low, at_high: their numbers in tiles, (P,)


def add_noise(
    bundle: Bundle, weights: Sequence[Tensor], logits: Sequence[Tensor], noisy: Sequence[Tensor]
) -> Extremes:
    """Write the noisy weights."""
    tiling, device = bundle.tiling, weights[0].device
    tiles = len(tiling.tiles)
    low, high = (torch.empty(len(weights), dtype=torch.float32, device=device) for _ in range(2))
    lows, highs, at_low, at_high = (torch.empty(tiles, dtype=torch.int32, device=device) for _ in range(4))
    extremes = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
    operands = {"weight": addresses(weights), "logits": addresses(logits), "noisy": addresses(noisy)}
    operands["channels"], operands["inner"] = formats(weights)
    fields = {
        **_noise_operands(bundle, device),
        **upload(device, operands),
        **extremes,
        "lows": lows,
        "highs": highs,
    }
    launch(kernels.find_extremes, tiles, fields)
    launch(kernels.merge_extremes, len(weights), fields)
    launch(kernels.add_noise, tiles, fields)
    return extremes


def add_noise_backward(
    bundle: Bundle,
    extremes: Extremes,
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    to_weights: Sequence[Tensor | None],
    to_logits: Sequence[Tensor],
) -> None:
    """Write the gradients, but for those that are None. extremes: those that `add_noise` gave."""
    tiling, device = bundle.tiling, weights[0].device
    operands = {"weight": addresses(weights), "logits": addresses(logits), "grad": addresses(grads)}
    operands |= {"grad_weight": addresses(to_weights), "grad_logits": addresses(to_logits)}
    operands["channels"], operands["inner"] = formats(weights)
    operands["grad_channels"], operands["grad_inner"] = formats(grads)
    sums = torch.empty(len(tiling.tiles), dtype=torch.float32, device=device)
    fields = {**_noise_operands(bundle, device), **upload(device, operands), **extremes, "sums": sums}
    launch(kernels.add_noise_backward, len(tiling.tiles), fields)
    if tiling.split:
        fields |= {"parts": sums, "sums": torch.zeros_like(sums)}
        launch(kernels.finish_groups, len(tiling.first_of_group), fields)
    launch(kernels.share_scale, len(tiling.tiles), fields)


def sum_bits(sizes: Sizes, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The bits of all entries, (); each tensor's highest logit, (T,)."""
    count, device = len(sizes.tiling.tiles), logits[0].device
    sums, highs = (torch.empty(count, dtype=kind, device=device) for kind in (torch.float32, torch.int32))
    low, high = (torch.empty(len(logits), dtype=torch.float32, device=device) for _ in range(2))
    fields = _size_operands(sizes, device) | upload(device, {"logits": addresses(logits)})
    fields |= {"sums": sums, "highs": highs}
    launch(kernels.sum_bits, count, fields)
    # `low` is of no use here: the kernel that merges extremes writes both
    launch(kernels.merge_extremes, len(logits), {**fields, "lows": highs, "low": low, "high": high})
    return sums.sum(dtype=torch.float64).float(), high


def sum_bits_backward(sizes: Sizes, logits: Sequence[Tensor], factor: Tensor, to_logits: Sequence[Tensor]) -> None:
    """Write the gradient of `factor`, (), times the bits."""
    operands = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    fields = _size_operands(sizes, factor.device) | upload(factor.device, operands) | {"factor": factor}
    launch(kernels.sum_bits_backward, len(sizes.tiling.tiles), fields)


def _noise_operands(bundle: Bundle, device: torch.device) -> dict[str, Any]:
    """The operands that give the tiles, the noise and its size."""
    cells = cells_on(device, bundle.noise)
    noise = {"cells": cells, "key": bundle.key, "number": bundle.number, "rank": bundle.rank}
    return {**tile_operands(bundle.tiling, device), **noise, **bundle.param.fields, **block_of(bundle.tiling)}


def _size_operands(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """The operands that give the tiles, the entries of groups, and the parameterisation."""
    size, last = _group_sizes_on(device, sizes.entries, sizes.group_size)
    return {**tile_operands(sizes.tiling, device), "size": size, "last": last, **sizes.param.fields}


@lru_cache(maxsize=256)
def _group_sizes_on(device: torch.device, entries: tuple[int, ...], group_size: int) -> tuple[Tensor, Tensor]:
    size, last = (torch.from_numpy(sizes).to(device) for sizes in group_sizes(entries, group_size))
    return size, last
