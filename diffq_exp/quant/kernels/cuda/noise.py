"""Noise for weights in a GPU's memory; see ../compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd import Bundle
from ..operands import addresses
from . import kernels
from .launch import cells_on, formats, launch, tables_of, tile_of, upload

Found = dict[str, Tensor]  # low, high: extremes of tensors, (T,); at_low, at_high: how many in each piece, (P,)


def add_noise(
    bundle: Bundle, weights: Sequence[Tensor], logits: Sequence[Tensor], noisy: Sequence[Tensor]
) -> Found:
    """Write the noisy weights."""
    plan, device = bundle.plan, weights[0].device
    table = tables_of(plan, device)
    low, high = (torch.empty(len(weights), dtype=torch.float32, device=device) for _ in range(2))
    lows, highs, at_low, at_high = (
        torch.empty(len(plan.pieces), dtype=torch.int32, device=device) for _ in range(4)
    )
    found = {"low": low, "high": high, "at_low": at_low, "at_high": at_high}
    told = {"weight": addresses(weights), "logits": addresses(logits), "noisy": addresses(noisy)}
    told["channels"], told["inner"] = formats(weights)
    fields = {**table, **upload(device, told), **found, "lows": lows, "highs": highs, **_drawn(bundle, device)}
    launch(kernels.look, len(plan.pieces), fields)
    launch(kernels.extremes, len(weights), fields)
    launch(kernels.add_noise, len(plan.pieces), fields)
    return found


def pass_back(
    bundle: Bundle,
    found: Found,
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    to_weights: Sequence[Tensor | None],
    to_logits: Sequence[Tensor],
) -> None:
    """Write the gradients, but for those that are None; of what `add_noise` found."""
    plan, device = bundle.plan, weights[0].device
    told = {"weight": addresses(weights), "logits": addresses(logits), "grad": addresses(grads)}
    told |= {"grad_weight": addresses(to_weights), "grad_logits": addresses(to_logits)}
    told["channels"], told["inner"] = formats(weights)
    told["grad_channels"], told["grad_inner"] = formats(grads)
    sums = torch.empty(len(plan.pieces), dtype=torch.float32, device=device)
    fields = {**tables_of(plan, device), **upload(device, told), **found, "sums": sums, **_drawn(bundle, device)}
    launch(kernels.pass_back, len(plan.pieces), fields)
    if plan.split:
        fields |= {"parts": sums, "sums": torch.zeros_like(sums)}
        launch(kernels.finish, len(plan.first_of_group), fields)
    launch(kernels.share, len(plan.pieces), fields)


def _drawn(bundle: Bundle, device: torch.device) -> dict[str, Any]:
    """What kernels need to draw noise and to know its size."""
    noise = {
        "cells": cells_on(device, bundle.noise),
        "key": bundle.key,
        "number": bundle.number,
        "rank": bundle.rank,
    }
    return {**noise, **bundle.param.fields, **tile_of(bundle.plan)}
