"""Uniform quantization: weights to integer levels and back, exactly as a stored network computes them.

Two grids. "minmax" divides a tensor's range [low, high] into the levels 0..top of each group; "step" puts
signed multiples of one learned step around zero (LSQ). Each has one scale (a range or a step) for the tensor, or
one for each channel, that is, for each entry of its first dimension. All arithmetic is float32, whatever the
weights are, so that a stored network gives the same values on every machine. `Stored` is the one form of a
quantized tensor that evaluation, states and files share, so that evaluation computes with the stored weights by
construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .groups import add_groups_, chunks_of, div_groups_, group_count, mul_groups_
from .packing import MAX_STORED_BITS


@dataclass(frozen=True)
class Stored:
    """One quantized tensor of N entries in G groups, with C scales.

    levels: int16 or uint8 (N,), >= 0, row-major.   bits: uint8 (G,), 0..15, the width of each group's levels.
    scales: float32, (2C,) with low and high of each in turn for "minmax", (C,) with the steps for "step". C is 1,
    or the channels of a tensor that has one group.
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

    @property
    def channel_size(self) -> int:
        """The entries of a channel that has a scale of its own; 0: the tensor has one scale."""
        return channel_size(self.shape) if len(self.scales) > SCALES[self.grid] else 0

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
        size, numbers = self.channel_size, SCALES[self.grid]
        for entries, parts in chunks_of(flat, size or self.group_size):
            levels, bits = self.levels[entries], self.bits if size else self.bits[parts]
            scales = self.scales.view(-1, numbers)[parts] if size else self.scales.view(1, numbers)
            GRIDS[self.grid](flat[entries].copy_(levels), bits, scales, self.top, self.group_size, size)
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


def channel_size(shape: Sequence[int]) -> int:
    """The entries of a channel, or of the tensor where it has no dimensions."""
    return math.prod(shape[1:])


def zero_rows(stored: Stored) -> int:
    """How many rows (entries of the first dimension) of a tensor of two dimensions or more are all zero."""
    if len(stored.shape) < 2:
        return 0
    return int((stored.values() == 0).reshape(stored.shape[0], -1).all(1).sum())


def along_channels(numbers: Tensor, weight: Tensor) -> Tensor:
    """Numbers of a weight's channels, or one for all of it, (C,) -> (C, 1, ..., 1), which broadcasts with it."""
    return numbers.view(-1, *[1] * (weight.dim() - 1))


def ranges_of(weight: Tensor, per_channel: bool = False) -> Tensor:
    """(low, high) of a tensor, or of each of its channels, float32 (C, 2)."""
    rows = weight.detach().float().reshape(-1, channel_size(weight.shape) if per_channel else weight.numel())
    return torch.stack(torch.aminmax(rows, dim=1), 1)


def store_minmax(
    weight: Tensor,
    bits: Tensor,
    group_size: int,
    widest: int,
    top: int | None = None,
    ranges: Tensor | None = None,
) -> Stored:
    """Round a tensor of at least one entry to the grid over its range; `bits` uint8 (G,), none above `widest`.

    ranges: (low, high) that weights are clamped to, float32 (C, 2), C as in Stored; None: those of `ranges_of`.
    A constant tensor has levels 0 and comes back exactly. Halves round to even.
    """
    flat = weight.detach().float().reshape(-1)
    clipped, ranges = ranges is not None, ranges_of(weight) if ranges is None else ranges
    low, high = ranges.unbind(1)
    scale = high - low
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    levels, highest = _empty_levels(flat, widest), tops(bits, top)
    size = channel_size(weight.shape) if len(ranges) > 1 else 0
    for entries, parts in chunks_of(flat, size or group_size):
        own = parts if size else slice(None)
        unit = div_groups_(add_groups_(flat[entries].clone(), -low[own], size), scale[own], size)
        unit = unit.clamp_(0, 1) if clipped else unit
        levels[entries] = mul_groups_(unit, highest if size else highest[parts], group_size).round_()
    return Stored("minmax", tuple(weight.shape), weight.dtype, group_size, levels, bits, ranges.reshape(-1), top)


def _minmax_values(flat: Tensor, bits: Tensor, scales: Tensor, top: int | None, groups: int, channels: int) -> None:
    low, high = scales.unbind(1)
    div_groups_(flat, tops(bits, top).clamp_(min=1), groups)
    mul_groups_(flat, high - low, channels)
    empty = torch.zeros_like(low).clamp(low, high)
    add_groups_(flat, torch.where(bits == 0, empty, low), channels or groups)


def store_step(weight: Tensor, step: Tensor, bits: int) -> Stored:
    """Round to multiples of `step`, (C,) with C as in Stored, in [-2^(bits-1), 2^(bits-1) - 1]; levels are kept
    2^(bits-1) higher.
    """
    half = 2 ** (bits - 1)
    step = step.detach().float().reshape(-1)
    flat = weight.detach().float().reshape(-1)
    widths = torch.full((1,), bits, dtype=torch.uint8, device=weight.device)
    levels = _empty_levels(flat, bits)
    size = channel_size(weight.shape) if len(step) > 1 else 0
    for entries, parts in chunks_of(flat, size):
        scaled = div_groups_(flat[entries].clone(), step[parts], size)
        levels[entries] = scaled.clamp_(-half, half - 1).round_().add_(half)
    step = torch.where(torch.isfinite(flat).all(), step, torch.nan)  # weights that are not finite must be noticed
    return Stored("step", tuple(weight.shape), weight.dtype, 0, levels, widths, step)


def _step_values(flat: Tensor, bits: Tensor, scales: Tensor, top: int | None, groups: int, channels: int) -> None:
    half = torch.where(bits == 0, 0.0, 2.0 ** (bits.float() - 1))
    mul_groups_(flat.sub_(half), scales[:, 0], channels)


GRIDS = {"minmax": _minmax_values, "step": _step_values}
SCALES = {"minmax": 2, "step": 1}  # float32 numbers of a scale


def check_stored(name: str, stored: Stored) -> None:
    """Refuse a `Stored` whose parts do not fit together, or whose scales are not finite.

    Raises: ValueError that names the tensor and the problem.
    """
    entries = torch.Size(stored.shape).numel()
    if stored.grid not in GRIDS:
        raise ValueError(f"tensor {name!r}: unknown grid {stored.grid!r}; known: {', '.join(GRIDS)}")
    if stored.grid == "step" and (stored.group_size or stored.top is not None):
        raise ValueError(f"tensor {name!r}: the grid of one step has one group and no top level")
    groups, numbers = group_count(entries, stored.group_size), SCALES[stored.grid]
    channels = stored.shape[0] if stored.shape and not stored.group_size else 1
    for part, tensor, expected in (
        ("levels", stored.levels, {entries}),
        ("bits", stored.bits, {groups}),
        ("scales", stored.scales, {numbers, numbers * channels}),
    ):
        if tensor.dim() != 1 or len(tensor) not in expected:
            allowed = " or ".join(f"({count},)" for count in sorted(expected))
            raise ValueError(f"tensor {name!r}: {part} of shape {tuple(tensor.shape)}, expected {allowed}")
    if not torch.isfinite(stored.scales).all():
        odd = stored.scales[~torch.isfinite(stored.scales)]
        count = f"{len(odd)} of its {len(stored.scales)} scales"
        raise ValueError(f"tensor {name!r}: {count} are not finite, the first is {odd[0]:g}")
