"""Tensors that a method does not quantize, made small for storage.

`folded` joins the four tensors of a batch norm into a scale and a shift. `narrowed` rounds what is float to
float16, or to a uniform grid over its range, as a quantized tensor of one group.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from .grids import Stored, store_minmax
from .network import StoredModel

FLOATS = ("float32", "float16", *(f"int{bits}" for bits in range(4, 16)))
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
GRID_BYTES = 16  # about what a tensor of its own grid takes besides its levels: the range and a row of the index
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an entry


def narrowed(stored: StoredModel, float: str) -> StoredModel:
    """The network with its floats in the precision `float`, one of FLOATS.

    float16: parameters and buffers, where they stay finite. int4 to int15: parameters on a grid of so many bits
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
    """The tensors in float16 where they stay finite; a constant one takes no bytes, and keeps its value."""
    halves = {
        name: tensor.half() if tensor.is_floating_point() and not is_constant(tensor) else tensor
        for name, tensor in tensors.items()
    }
    return {
        name: half if torch.equal(half.isfinite(), tensors[name].isfinite()) else tensors[name]
        for name, half in halves.items()
    }


def _grid_is_smaller(tensor: Tensor, bits: int) -> bool:
    """Whether a tensor fits a grid, whose range is float32, and takes fewer bytes there than as float16."""
    if not tensor.is_floating_point() or (16 - bits) * tensor.numel() <= 8 * GRID_BYTES:
        return False
    low, high = torch.aminmax(tensor.detach().float())
    return bool((high - low).isfinite()) and not is_constant(tensor)


def _on_grid(tensor: Tensor, bits: int) -> Stored:
    return store_minmax(tensor, torch.full((1,), bits, dtype=torch.uint8, device=tensor.device), 0, bits)


def is_constant(tensor: Tensor) -> bool:
    """Whether all entries of a tensor are the same to the last bit: several, or a counter of one."""
    fewest = 2 if tensor.is_floating_point() else 1
    if tensor.numel() < fewest or tensor.is_complex():
        return False
    whole = tensor.detach().view(WHOLE[tensor.element_size()])
    return bool((whole == whole[(0,) * whole.dim()]).all())


def folded(stored: StoredModel, model: nn.Module) -> StoredModel:
    """The network with each batch norm as a scale and a shift: its mean is 0, its variance 1 (less its eps).

    In evaluation the network computes the same, up to rounding. Left as they are: batch norms without statistics or
    without parameters of their own, those with tensors that are quantized or shared, those whose scale or shift
    would not be finite, and subclasses of torch's.
    """
    floats, buffers, shared = dict(stored.floats), dict(stored.buffers), _shared(stored, model)
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        weight, bias, mean, var = (f"{dot}{part}" for part in ("weight", "bias", "running_mean", "running_var"))
        own = {weight, bias} <= floats.keys() and {mean, var} <= buffers.keys()
        if type(module) not in BATCH_NORMS or not own or shared & {weight, bias, mean, var}:
            continue
        scale = floats[weight].double() / (buffers[var].double() + module.eps).sqrt()
        shift = floats[bias].double() - buffers[mean].double() * scale
        parts = {weight: scale.to(floats[weight].dtype), bias: shift.to(floats[bias].dtype)}
        if not all(part.isfinite().all() for part in parts.values()):
            continue
        floats |= parts
        buffers[mean] = torch.zeros_like(buffers[mean])
        buffers[var] = torch.full_like(buffers[var], 1 - module.eps)
        if (counter := f"{dot}num_batches_tracked") in buffers:
            buffers[counter] = torch.zeros_like(buffers[counter])
    return replace(stored, floats=floats, buffers=buffers)


def is_folded(model: nn.Module) -> bool:
    """Whether a batch norm has the statistics that `folded` leaves."""
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    return any(_has_folded_statistics(norm.running_mean, norm.running_var, norm.eps) for norm in norms)


def _has_folded_statistics(mean: Tensor | None, var: Tensor | None, eps: float) -> bool:
    if mean is None or var is None or not var.numel():
        return False
    return not bool(mean.any()) and torch.equal(var, torch.full_like(var, 1 - eps))


def _shared(stored: StoredModel, model: nn.Module) -> set[str]:
    """Names of tensors that the network has under several names: tied parameters, and buffers in one memory."""
    places = {name: value.data_ptr() for name, value in model.state_dict().items() if value.numel()}
    uses = Counter(places.values())
    several = {name for name, place in places.items() if place and uses[place] > 1}
    return several | {*stored.tied, *stored.tied.values()}
