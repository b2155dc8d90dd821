"""How kernels are launched: what they are told lies on the GPU, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from ..draw import Array, cells_of
from ..pieces import Plan
from ..tables import is_channels_last

TILE = 1024  # entries, or more for long groups


def launch(kernel: Any, programs: int, *args: Any, **constants: Any) -> None:
    """Run so many programs of a kernel, on the device of its first argument and its current stream."""
    device = args[0].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs,)](*args, **constants, num_warps=8, enable_fp_fusion=True)


def upload(device: torch.device, *arrays: Array) -> tuple[Tensor, ...]:
    """Arrays of one length as tensors there, int64, each from a multiple of 16 bytes on, which Triton asks for."""
    count = len(arrays[0])
    table = torch.zeros(len(arrays), count + count % 2, dtype=torch.int64, device="cpu")
    np.stack(arrays, out=table.numpy()[:, :count])
    if device.type == "cuda":
        table = table.pin_memory()  # else the copy would wait
    return table.to(device, non_blocking=True).unbind()


@lru_cache(maxsize=256)
def tables_of(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """pieces (P, 5); tensors, the first piece of each, and the end (T + 1,); parts, of each group, (G + 1,)."""
    count = len(plan.pieces)
    pieces = plan.pieces.view(np.int64).reshape(count, -1)
    ends = (np.append(starts, count) for starts in (plan.tensors, plan.parts))
    on_device = [torch.from_numpy(one.astype(np.int64)).to(device) for one in (pieces, *ends)]
    return on_device[0], on_device[1], on_device[2]


@lru_cache(maxsize=16)
def cells_on(device: torch.device, noise: str) -> Tensor:
    """The values of a noise, (CELLS,)."""
    return torch.from_numpy(cells_of(noise)).to(device)


def tile_of(plan: Plan) -> dict[str, int | bool]:
    """What a program has of a piece at a time: groups, each in a row; of a part of a group just entries."""
    size = TILE if plan.split else plan.size
    entries = triton.next_power_of_2(size)
    return {"GROUP": size, "GROUPS": max(TILE // entries, 1), "ENTRIES": entries, "SPLIT": plan.split}


def formats(tensors: Sequence[Tensor | None]) -> Array:
    """channels, inner: how the entries of tensors lie, see kernels._places; (2, T). Row-major: 1, 1."""
    table: Array = np.ones((2, len(tensors)), np.int64)
    for place, one in enumerate(tensors):
        if one is not None and is_channels_last(one):
            table[:, place] = one.shape[1], one[0, 0].numel()
    return table
