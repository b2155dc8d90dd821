"""Uniform quantization: weights to integer levels and back, exactly as a stored network computes them.

Two grids. "minmax" divides a tensor's range [low, high] into the levels 0..top of each group; "step" puts
signed multiples of one learned step around zero (LSQ). All arithmetic is float32, whatever the weights are, so
that a stored network gives the same values on every machine. `Stored` is the one form of a quantized tensor
that evaluation, states and files share: what is evaluated is what is stored, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .groups import group_count, spread_groups


@dataclass(frozen=True)
class Stored:
    """One quantized tensor of N entries in G groups.

    levels: int16 (N,), >= 0, row-major.          bits: uint8 (G,), 1..15, the width of each group's levels.
    scales: float32, (low, high) for "minmax", (step,) for "step".
    top: the highest level where it is not 2^bits - 1 (fractional widths of "minmax"), else None.
    """

    grid: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    group_size: int
    levels: Tensor
    bits: Tensor
    scales: Tensor
    top: int | None = None

    def values(self) -> Tensor:
        """The weights that a network with this tensor computes with: `shape`, `dtype`, contiguous."""
        return GRIDS[self.grid](self).view(self.shape).to(self.dtype)

    def to(self, device: torch.device | str) -> Stored:
        """The same with its tensors on `device`."""
        parts = {key: getattr(self, key).to(device) for key in ("levels", "bits", "scales")}
        return replace(self, **parts)


def tops(bits: Tensor, top: int | None, entries: int, group_size: int) -> Tensor:
    """The highest level of each entry's group, float32: a scalar where it is the same for all, else (N,)."""
    if top is not None:
        return torch.tensor(float(top), device=bits.device)
    per_group = (2.0 ** bits.float()).sub_(1)
    return per_group[0] if len(bits) == 1 else spread_groups(per_group, entries, group_size)


def store_minmax(weight: Tensor, bits: Tensor, group_size: int, top: int | None = None) -> Stored:
    """Round a tensor of at least one entry to the grid over its range; `bits` uint8 (G,).

    A constant tensor has levels 0 and comes back exactly. Halves round to even.
    """
    flat = weight.detach().float().reshape(-1)
    low, high = torch.aminmax(flat)
    scale = high - low
    unit = (flat - low) / torch.where(scale == 0, torch.ones_like(scale), scale)
    levels = unit.mul_(tops(bits, top, flat.numel(), group_size)).round_().to(torch.int16)
    return Stored(
        "minmax", tuple(weight.shape), weight.dtype, group_size, levels, bits, torch.stack([low, high]), top
    )


def _minmax_values(stored: Stored) -> Tensor:
    low, high = stored.scales
    entries = stored.levels.numel()
    unit = stored.levels.float().div_(tops(stored.bits, stored.top, entries, stored.group_size))
    return unit.mul_(high - low).add_(low)


def store_step(weight: Tensor, step: Tensor, bits: int) -> Stored:
    """Round to multiples of `step` in [-2^(bits-1), 2^(bits-1) - 1]; levels are kept 2^(bits-1) higher."""
    half = 2 ** (bits - 1)
    step = step.detach().float().reshape(1)
    flat = weight.detach().float().reshape(-1)
    levels = (flat / step).clamp_(-half, half - 1).round_().add_(half).to(torch.int16)
    step = torch.where(torch.isfinite(flat).all(), step, torch.nan)  # what is not finite must not pass for levels
    widths = torch.full((1,), bits, dtype=torch.uint8, device=weight.device)
    return Stored("step", tuple(weight.shape), weight.dtype, 0, levels, widths, step)


def _step_values(stored: Stored) -> Tensor:
    half = 2.0 ** (stored.bits.float() - 1)
    return stored.levels.float().sub_(half).mul_(stored.scales)


GRIDS = {"minmax": _minmax_values, "step": _step_values}
SCALES = {"minmax": 2, "step": 1}  # float32 numbers that a tensor of each grid carries


def check_stored(name: str, stored: Stored) -> None:
    """Refuse a `Stored` whose parts do not fit together, or whose scales are not finite.

    Raises: ValueError that names the tensor and what is wrong with it.
    """
    entries = torch.Size(stored.shape).numel()
    if stored.grid not in GRIDS:
        raise ValueError(f"tensor {name!r}: unknown grid {stored.grid!r}; known: {', '.join(GRIDS)}")
    if stored.grid == "step" and (stored.group_size or stored.top is not None):
        raise ValueError(f"tensor {name!r}: the grid of one step has one group and no top level")
    groups = group_count(entries, stored.group_size)
    for what, tensor, expected in (
        ("levels", stored.levels, entries),
        ("bits", stored.bits, groups),
        ("scales", stored.scales, SCALES[stored.grid]),
    ):
        if tuple(tensor.shape) != (expected,):
            raise ValueError(f"tensor {name!r}: {what} of shape {tuple(tensor.shape)}, expected ({expected},)")
    if not torch.isfinite(stored.scales).all():
        raise ValueError(f"tensor {name!r}: its scales are not finite: {stored.scales.tolist()}")
