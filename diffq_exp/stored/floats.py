"""Tensors that a method does not quantize, made small for storage.

`folded` joins the four tensors of a batch norm into a scale and a shift. `narrowed` rounds what is float to
float16, or to a uniform grid over its range, as a quantized tensor of one group.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .grids import Stored, store_minmax
from .network import StoredModel

FLOATS = ("float32", "float16", *(f"int{bits}" for bits in range(4, 16)))
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
GRID_BYTES = 16  # about what a tensor of its own grid takes besides its levels: the range and a row of the index


def narrowed(stored: StoredModel, float: str) -> StoredModel:
    """The network with its floats in the precision `float`, one of FLOATS.

    float16: parameters and buffers, where they stay finite. int8 to int15: parameters on a grid of so many bits
    over their range, where that takes fewer bytes than float16; all else as float16.
    Raises: ValueError for another `float`.
    """
    if float not in FLOATS:
        raise ValueError(f"float={float!r}: allowed are {', '.join(FLOATS)}")
    if float == "float32":
        return stored
    grids: dict[str, Stored] = {}
    if float != "float16":
        bits = int(float.removeprefix("int"))
        chosen = {name: tensor for name, tensor in stored.floats.items() if _grid_is_smaller(tensor, bits)}
        grids = {name: _on_grid(tensor, bits) for name, tensor in chosen.items()}
    floats = {name: tensor for name, tensor in stored.floats.items() if name not in grids}
    tensors = ChainMap(grids, stored.tensors) if grids else stored.tensors  # type: ignore[arg-type]
    return replace(stored, tensors=tensors, floats=_halved(floats), buffers=_halved(stored.buffers))


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return {
        name: half if torch.equal(half.isfinite(), tensors[name].isfinite()) else tensors[name]
        for name, half in halves.items()
    }


def _grid_is_smaller(tensor: Tensor, bits: int) -> bool:
    if not tensor.is_floating_point() or (16 - bits) * tensor.numel() <= 8 * GRID_BYTES:
        return False
    return bool(tensor.isfinite().all()) and not is_constant(tensor)


def _on_grid(tensor: Tensor, bits: int) -> Stored:
    return store_minmax(tensor, torch.full((1,), bits, dtype=torch.uint8, device=tensor.device), 0, bits)


def is_constant(tensor: Tensor) -> bool:
    """Whether all entries of a tensor are the same: several, or a counter of one."""
    fewest = 2 if tensor.is_floating_point() else 1
    return tensor.numel() >= fewest and bool((tensor == tensor.reshape(-1)[0]).all())


def folded(stored: StoredModel, model: nn.Module) -> StoredModel:
    """The network with each batch norm as a scale and a shift: its mean is 0, its variance 1 (less its eps).

    In evaluation the network computes the same, up to rounding. Left as they are: batch norms without statistics or
    without parameters of their own, those with tensors that are quantized or shared, and subclasses of torch's.
    """
    floats, buffers = dict(stored.floats), dict(stored.buffers)
    shared = {*stored.tied, *stored.tied.values()}
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        weight, bias, mean, var = (f"{dot}{part}" for part in ("weight", "bias", "running_mean", "running_var"))
        if type(module) not in BATCH_NORMS or not {weight, bias} <= floats.keys() or mean not in buffers:
            continue
        if shared & {weight, bias, mean, var}:
            continue
        scale = floats[weight].double() / (buffers[var].double() + module.eps).sqrt()
        shift = floats[bias].double() - buffers[mean].double() * scale
        floats[weight], floats[bias] = scale.to(floats[weight].dtype), shift.to(floats[bias].dtype)
        buffers[mean] = torch.zeros_like(buffers[mean])
        buffers[var] = torch.full_like(buffers[var], 1 - module.eps)
        if f"{dot}num_batches_tracked" in buffers:
            buffers[f"{dot}num_batches_tracked"] = torch.zeros_like(buffers[f"{dot}num_batches_tracked"])
    return replace(stored, floats=floats, buffers=buffers)
