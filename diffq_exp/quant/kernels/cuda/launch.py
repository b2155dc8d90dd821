"""How kernels are launched: their operands are on the GPU, and nothing waits for it."""

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

from ...noise import Noise
from ..cells import Array, cells_of
from ..operands import is_channels_last
from ..tiles import Tiling

BLOCK = 1024  # entries, or more for long groups
OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}


def launch(kernel: Any, programs: int, fields: Mapping[str, Any]) -> None:
    """Run so many programs of a kernel, with the fields that its arguments name, on the device of `tiles`."""
    operands, device = {name: fields[name] for name in kernel.arg_names}, fields["tiles"].device
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs,)](**operands, **OPTIONS)


def upload(device: torch.device, rows: Mapping[str, Array]) -> dict[str, Tensor]:
    """Arrays of one length as int64 tensors on a device.

    Each begins at a multiple of 16 bytes; otherwise Triton would compile once more.
    """
    count = len(next(iter(rows.values())))
    table = torch.zeros(len(rows), count + count % 2, dtype=torch.int64, device="cpu")
    np.stack(list(rows.values()), out=table.numpy()[:, :count])
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError("a CUDA graph of the backward alone cannot be captured: capture the forward with it")
        table = table.pin_memory()  # else the copy would wait
    return dict(zip(rows, table.to(device, non_blocking=True).unbind(), strict=True))


@lru_cache(maxsize=256)
def tile_operands(tiling: Tiling, device: torch.device) -> dict[str, Tensor]:
    """tiles, (P, 5); tensors, groups: the first tile of each, and the end, (T + 1,), (G + 1,)."""
    count = len(tiling.tiles)
    arrays = {
        "tiles": tiling.tiles.view(np.int64).reshape(count, -1),
        "tensors": np.append(tiling.first_of_tensor, count),
        "groups": np.append(tiling.first_of_group, count),
    }
    return {name: torch.from_numpy(array.astype(np.int64)).to(device) for name, array in arrays.items()}


@lru_cache(maxsize=16)
def cells_on(device: torch.device, noise: type[Noise]) -> Tensor:
    """The values of a noise, (CELLS,)."""
    return torch.from_numpy(cells_of(noise)).to(device)


def block_of(tiling: Tiling) -> dict[str, int | bool]:
    """The part of a tile that a program has at a time: groups, each in a row; of a part of a group just entries."""
    size = BLOCK if tiling.split else tiling.group_size
    entries = triton.next_power_of_2(size)
    return {"GROUP": size, "GROUPS": max(BLOCK // entries, 1), "ENTRIES": entries, "SPLIT": tiling.split}


def formats(tensors: Sequence[Tensor | None]) -> Array:
    """channels, inner: how the entries of tensors lie, see arithmetic.positions_of; (2, T). Row-major: 1, 1."""
    shapes = [tensor.shape if tensor is not None and is_channels_last(tensor) else (1, 1) for tensor in tensors]
    return np.array([[shape[1] for shape in shapes], [math.prod(shape[2:]) for shape in shapes]])
