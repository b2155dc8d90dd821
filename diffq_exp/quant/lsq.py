"""LSQ: learned step size quantization of the weights (Esser et al. 2020, arXiv 1902.08153).

    v = clamp(w / s, -2^(bits-1), 2^(bits-1) - 1),    value = round(v) * s

Gradients: d value / d w is 1 strictly inside the clamp and 0 elsewhere; d value / d s is round(v) - v inside and
the bound elsewhere, scaled by 1 / sqrt(N * (2^(bits-1) - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..stored.grids import Stored, along_channels, store_step
from ..stored.packing import MAX_STORED_BITS
from ..stored.selection import Tensors
from .arguments import check_number, check_suffix
from .formula import STEP_BITS
from .learned import Learned, check_steps
from .quantizer import Quantizer

SMALLEST_STEP = 1e-8  # a step of zero or below, where training can lead, counts as this


class LSQ(Quantizer):
    """Fixed width for all tensors, a learned step for each; weights only.

    bits: a whole number from 2 to 15. per_channel: a step for each channel (entry of the first dimension) of
    tensors of two dimensions or more. The rest: see Quantizer.
    """

    method = "lsq"

    def __init__(
        self,
        model: nn.Module,
        bits: int = 8,
        min_size: float = 0.01,
        float16: bool = False,
        suffix: str = "_lsq",
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
        per_channel: bool = False,
    ) -> None:
        self.width = int(check_number("bits", bits, 2, MAX_STORED_BITS, whole=True))
        self.per_channel = per_channel
        check_suffix(suffix)
        self.suffix = suffix
        super().__init__(model, min_size, float16, exclude, detect_bound)

    @property
    def half(self) -> int:
        """Levels are from -half to half - 1."""
        return int(2 ** (self._own_width - 1))

    @property
    def _own_width(self) -> int:
        return min(max(math.ceil(self.width - self.coarsened), 2), MAX_STORED_BITS)

    def coarsen(self, bits: float) -> None:
        """So many bits less, and the step as LSQ begins with it at that width: it goes by 1 / sqrt(2^(bits-1))."""
        self.coarsened += bits

    def learned_tensors(self, weight: Tensors) -> Mapping[str, Learned]:
        """The step, (1,) or (C,), with the rate and weight decay of its optimizer."""
        rows = weight.param.detach().abs().float().reshape(weight.channels if self.per_channel else 1, -1)
        step = 2 * rows.mean(1) / math.sqrt(self.half)
        return {self.suffix: Learned(step.clamp(min=SMALLEST_STEP))}

    def _step(self, item: Tensors) -> Tensor:
        learned = self.learned_tensor(item, self.suffix)
        return learned * 2.0 ** (self.coarsened / 2) if self.coarsened else learned

    def training_value(self, item: Tensors) -> Tensor:
        step = self._step(item)
        gradient_scale = 1 / math.sqrt(item.entries / len(step) * (self.half - 1))
        return _RoundToSteps.apply(item.param, step, self.half, gradient_scale)  # type: ignore[no-untyped-call, no-any-return]

    def store(self, item: Tensors, weight: Tensor) -> Stored:
        return store_step(weight, self._step(item).float().clamp(min=SMALLEST_STEP), self._own_width)

    def size_bits(self, exact: bool) -> float:
        items = self.selection.quantized
        return sum(self._own_width * item.entries + STEP_BITS * len(self._step(item)) for item in items)

    def check_stored(self, item: Tensors, stored: Stored) -> None:
        check_steps(item, stored, self._step(item))

    def adopt(self, item: Tensors, stored: Stored) -> None:
        with torch.no_grad():
            self.learned_tensor(item, self.suffix).copy_(stored.scales / 2.0 ** (self.coarsened / 2))

    def widths(self, item: Tensors) -> Tensor:
        return torch.tensor([float(self._own_width)])


class _RoundToSteps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, half: int, gradient_scale: float) -> Tensor:
        ctx.step_dtype, ctx.steps = step.dtype, len(step)
        step = step.to(torch.promote_types(step.dtype, torch.float32)).clamp(min=SMALLEST_STEP)
        scaled = weight / along_channels(step, weight)
        rounded = scaled.clamp(-half, half - 1).round_()
        ctx.save_for_backward(scaled, rounded)
        ctx.half, ctx.gradient_scale = half, gradient_scale
        return (rounded * along_channels(step, weight)).to(weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled, rounded = ctx.saved_tensors
        inside = (scaled > -ctx.half) & (scaled < ctx.half - 1)
        grad_weight = grad * inside
        of_entries = grad * rounded - grad_weight * scaled
        grad_step = of_entries.reshape(ctx.steps, -1).sum(1) * ctx.gradient_scale
        return grad_weight, grad_step.to(ctx.step_dtype), None, None
