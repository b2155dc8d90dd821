"""One width for all tensors: post-training quantization (PTQ), or during training by the straight-through way."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..stored.grids import Stored, store_minmax
from ..stored.packing import MAX_STORED_BITS
from ..stored.selection import Tensors
from .arguments import check_choice, check_number
from .clipping import RANGES, choose_ranges
from .formula import EXTREMES_BITS
from .quantizer import Quantizer


class UniformQuantizer(Quantizer):
    """Uniform quantization of each tensor over its range, with the same width for all.

    bits: 1 to 15; a fraction means floor(2^bits) levels. qat: a training forward sees the stored values too,
    with the gradient passed straight through (straight-through estimator); without it training is untouched.
    per_channel: a range for each channel (entry of the first dimension) of tensors of two dimensions or more.
    ranges: "minmax", or "mse", the part of it with the least squared error. The rest: see Quantizer.
    """

    method = "uniform"

    def __init__(
        self,
        model: nn.Module,
        bits: float = 8.0,
        min_size: float = 0.01,
        float16: bool = False,
        qat: bool = False,
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
        per_channel: bool = False,
        ranges: str = "minmax",
    ) -> None:
        self.width = check_number("bits", bits, 1, MAX_STORED_BITS)
        self.qat, self.per_channel, self.ranges = qat, per_channel, check_choice("ranges", ranges, RANGES)
        super().__init__(model, min_size, float16, exclude, detect_bound)

    @property
    def top(self) -> int:
        """The highest level."""
        return int(2.0**self._own_width) - 1

    @property
    def _own_width(self) -> float:
        return min(max(self.width - self.coarsened, 1.0), float(MAX_STORED_BITS))

    def coarsen(self, bits: float) -> None:
        self.coarsened += bits

    def training_value(self, item: Tensors) -> Tensor | None:
        if not self.qat:
            return None
        weight = item.param
        with torch.no_grad():
            offset = self.store(item, weight).values() - weight
        return weight + offset  # the offset is a constant: the gradient passes straight through

    def store(self, item: Tensors, weight: Tensor) -> Stored:
        width = self.top.bit_length()
        bits = torch.full((1,), width, dtype=torch.uint8, device=weight.device)
        ranges = choose_ranges(weight, self.top, self.ranges, self.per_channel and weight.dim() > 1)
        return store_minmax(weight, bits, 0, width, None if self._own_width.is_integer() else self.top, ranges)

    def size_bits(self, exact: bool) -> float:
        ranges = sum(item.channels if self.per_channel else 1 for item in self.selection.quantized)
        return EXTREMES_BITS * ranges + sum(self._own_width * item.entries for item in self.selection.quantized)

    def widths(self, item: Tensors) -> Tensor:
        return torch.tensor([self._own_width])
