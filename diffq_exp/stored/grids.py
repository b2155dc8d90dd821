"""Uniform quantization: weights to integer levels and back, exactly as a stored network computes them.

Two grids. "minmax" divides a tensor's range [low, high] into the levels 0..top of each group; "step" puts
signed multiples of one learned step around zero (LSQ). All arithmetic is float32, whatever the weights are, so
that a stored network gives the same values on every machine. `Stored` is the one form of a quantized tensor
that evaluation, states and files share, so that evaluation computes with the stored weights by construction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .groups import add_groups_, chunks_of, div_groups_, group_count, mul_groups_
from .packing import MAX_STORED_BITS


@dataclass(frozen=True)
class Stored:
    """One quantized tensor of N entries in G groups.

    levels: int16 or uint8 (N,), >= 0, row-major.   bits: uint8 (G,), 0..15, the width of each group's levels.
    scales: float32, (low, high) for "minmax", (step,) for "step".
    top: the highest level where it is not 2^bits - 1 (fractional widths of "minmax"), else None.

    A group of 0 bits has levels 0 and one value for all its entries: 0, or the end of the range that is nearest.
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
        flat = torch.empty(self.levels.shape, device=self.levels.device)
        return self.values_into(flat).view(self.shape).to(self.dtype)

    def write(self, target: Tensor) -> None:
        """Put the values into a tensor of the same shape; into contiguous float32 without a copy in between."""
        if target.is_contiguous() and target.dtype == torch.float32 == self.dtype:
            self.to(target.device).values_into(target.view(-1))
        else:
            target.copy_(self.values())

    def values_into(self, flat: Tensor) -> Tensor:
        """Compute the values in the memory of `flat`, float32 (N,); -> `flat`."""
        for entries, groups in chunks_of(flat, self.group_size):
            levels, bits = self.levels[entries], self.bits[groups]
            chunk = Stored(  # not by replace(), which torch.compile of torch 2.6 cannot trace
                self.grid, self.shape, self.dtype, self.group_size, levels, bits, self.scales, self.top
            )
            GRIDS[self.grid](chunk, flat[entries].copy_(levels))
        return flat

    def to(self, device: torch.device | str) -> Stored:
        """The same with its tensors on `device`."""
        parts = {key: getattr(self, key).to(device) for key in ("levels", "bits", "scales")}
        return replace(self, **parts)


def tops(bits: Tensor, top: int | None) -> Tensor:
    """The highest level of each group, float32 (G,)."""
    if top is not None:
        return torch.where(bits == 0, 0.0, float(top))
    return (2.0 ** bits.float()).sub_(1)


def widest_of(bits: Tensor) -> int:
    """The widest of `bits`, or the widest allowed where reading them would mean waiting for a device."""
    readable = bits.device.type == "cpu" and not torch.compiler.is_compiling()
    return int(bits.max()) if readable else MAX_STORED_BITS


def _empty_levels(flat: Tensor, widest: int) -> Tensor:
    return torch.empty(flat.shape, dtype=torch.uint8 if widest <= 8 else torch.int16, device=flat.device)


def store_minmax(weight: Tensor, bits: Tensor, group_size: int, widest: int, top: int | None = None) -> Stored:
    """Round a tensor of at least one entry to the grid over its range; `bits` uint8 (G,), none above `widest`.

    A constant tensor has levels 0 and comes back exactly. Halves round to even.
    """
    flat = weight.detach().float().reshape(-1)
    low, high = torch.aminmax(flat)
    scale = high - low
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    levels, highest = _empty_levels(flat, widest), tops(bits, top)
    for entries, groups in chunks_of(flat, group_size):
        unit = (flat[entries] - low).div_(scale)
        levels[entries] = mul_groups_(unit, highest[groups], group_size).round_()
    return Stored(
        "minmax", tuple(weight.shape), weight.dtype, group_size, levels, bits, torch.stack([low, high]), top
    )


def _minmax_values(stored: Stored, flat: Tensor) -> None:
    low, high = stored.scales
    div_groups_(flat, tops(stored.bits, stored.top).clamp_(min=1), stored.group_size).mul_(high - low)
    empty = torch.zeros_like(low).clamp(low, high)
    add_groups_(flat, torch.where(stored.bits == 0, empty, low), stored.group_size)


def store_step(weight: Tensor, step: Tensor, bits: int) -> Stored:
    """Round to multiples of `step` in [-2^(bits-1), 2^(bits-1) - 1]; levels are kept 2^(bits-1) higher."""
    half = 2 ** (bits - 1)
    step = step.detach().float().reshape(1)
    flat = weight.detach().float().reshape(-1)
    widths = torch.full((1,), bits, dtype=torch.uint8, device=weight.device)
    levels = _empty_levels(flat, bits)
    for entries, _ in chunks_of(flat, 0):
        levels[entries] = (flat[entries] / step).clamp_(-half, half - 1).round_().add_(half)
    step = torch.where(torch.isfinite(flat).all(), step, torch.nan)  # weights that are not finite must be noticed
    return Stored("step", tuple(weight.shape), weight.dtype, 0, levels, widths, step)


def _step_values(stored: Stored, flat: Tensor) -> None:
    half = torch.where(stored.bits == 0, 0.0, 2.0 ** (stored.bits.float() - 1))
    flat.sub_(half).mul_(stored.scales)


GRIDS = {"minmax": _minmax_values, "step": _step_values}
SCALES = {"minmax": 2, "step": 1}  # float32 numbers that a tensor of each grid carries


def check_stored(name: str, stored: Stored) -> None:
    """Refuse a `Stored` whose parts do not fit together, or whose scales are not finite.

    Raises: ValueError that names the tensor and the problem.
    """
    entries = torch.Size(stored.shape).numel()
    if stored.grid not in GRIDS:
        raise ValueError(f"tensor {name!r}: unknown grid {stored.grid!r}; known: {', '.join(GRIDS)}")
    if stored.grid == "step" and (stored.group_size or stored.top is not None):
        raise ValueError(f"tensor {name!r}: the grid of one step has one group and no top level")
    groups = group_count(entries, stored.group_size)
    for part, tensor, expected in (
        ("levels", stored.levels, entries),
        ("bits", stored.bits, groups),
        ("scales", stored.scales, SCALES[stored.grid]),
    ):
        if tuple(tensor.shape) != (expected,):
            raise ValueError(f"tensor {name!r}: {part} of shape {tuple(tensor.shape)}, expected ({expected},)")
    if not torch.isfinite(stored.scales).all():
        raise ValueError(f"tensor {name!r}: its scales are not finite: {stored.scales.tolist()}")
