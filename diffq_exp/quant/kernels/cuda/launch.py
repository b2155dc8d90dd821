"""How kernels are launched: what they are told lies on the GPU, and nothing waits for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from ...noise import Array, cells_of
from ..operands import is_channels_last
from ..tiles import Plan

TILE = 1024  # entries, or more for long groups
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}


def launch(kernel: Any, programs: int, fields: Mapping[str, Any]) -> None:
    """Run so many programs of a kernel, with those of the fields that it names, where `pieces` are."""
    taken, device = {name: fields[name] for name in kernel.arg_names}, fields["pieces"].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs,)](**taken, **OPTIONS)


def upload(device: torch.device, rows: Mapping[str, Array]) -> dict[str, Tensor]:
    """Arrays of one length as tensors there, int64; from multiples of 16 bytes on, or Triton compiles once more."""
    count = len(next(iter(rows.values())))
    table = torch.zeros(len(rows), count + count % 2, dtype=torch.int64, device="cpu")
    np.stack(list(rows.values()), out=table.numpy()[:, :count])
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph must be captured of the forward as well: this one ran before")
        table = table.pin_memory()  # else the copy would wait
    return dict(zip(rows, table.to(device, non_blocking=True).unbind(), strict=True))


@lru_cache(maxsize=256)
def tables_of(plan: Plan, device: torch.device) -> dict[str, Tensor]:
    """pieces, (P, 5); tensors, groups: the first piece of each, and the end, (T + 1,), (G + 1,)."""
    count = len(plan.pieces)
    arrays = {
        "pieces": plan.pieces.view(np.int64).reshape(count, -1),
        "tensors": np.append(plan.first_of_tensor, count),
        "groups": np.append(plan.first_of_group, count),
    }
    return {name: torch.from_numpy(one.astype(np.int64)).to(device) for name, one in arrays.items()}


@lru_cache(maxsize=16)
def cells_on(device: torch.device, noise: str) -> Tensor:
    """The values of a noise, (CELLS,)."""
    return torch.from_numpy(cells_of(noise)).to(device)


def tile_of(plan: Plan) -> dict[str, int | bool]:
    """What a program has of a piece at a time: groups, each in a row; of a part of a group just entries."""
    size = TILE if plan.split else plan.group_size
    entries = triton.next_power_of_2(size)
    return {"GROUP": size, "GROUPS": max(TILE // entries, 1), "ENTRIES": entries, "SPLIT": plan.split}


def formats(tensors: Sequence[Tensor | None]) -> Array:
    """channels, inner: how the entries of tensors lie, see arithmetic.places_of; (2, T). Row-major: 1, 1."""
    last = [one.shape if one is not None and is_channels_last(one) else (1, 1) for one in tensors]
    return np.array([[shape[1] for shape in last], [math.prod(shape[2:]) for shape in last]])
