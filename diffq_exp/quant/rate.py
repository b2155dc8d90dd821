"""A quantizer that is trained on the bytes that the coder of the file will spend.

Levels are multiples of a learned step around zero, one step for each tensor, so that a weight can be pruned by
becoming zero. In the first part of training a weight carries noise of the size of its step, then it is rounded:

    value = w + step * error,    error = eps, then round(w / step) - w / step

The error is a constant for the gradient (the straight-through estimator). The size, `size_bits`, is a
differentiable estimate of what coding in context spends (coded_bits.py). The step is learned against it, since an
entropy coder pays for the logarithm of range / step, not for bits of a range (Oktay et al. 2020, arXiv 1906.06624).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..stored.grids import Stored, along_channels, store_step
from ..stored.packing import MAX_STORED_BITS
from ..stored.selection import Tensors
from .arguments import check_number, check_suffix
from .coded_bits import estimated_bits
from .formula import STEP_BITS
from .kernels.coded import StepKernels, serves
from .learned import Learned, check_steps
from .noise import Noise, draw, noise_of
from .quantizer import Quantizer

SMALLEST_STEP = 1e-8
SIZE_OF_ZEROS = 0.01  # what a tensor that begins with zeros, as many biases do, is taken to have as its mean size


class RateQuantizer(Quantizer):
    """Learned steps around zero, trained on an estimate of the coded size.

    step: the first step, in units of the mean size of the tensor's weights. noise: as of DiffQuantizer, in units of
    the step. round_from: the share of training (see `at`) from which weights are rounded; 0: always. All parameters
    of `least_dims` dimensions or more are quantized, unless min_size or exclude leaves them out; 1: biases and
    scales of norms too. per_channel: a step for each channel (entry of the first dimension).
    The rest: see Quantizer.
    """

    method = "rate"
    measure = "coded"  # the estimate of the coder's bytes

    def __init__(
        self,
        model: nn.Module,
        step: float = 0.3,
        noise: str | Noise = "uniform",
        round_from: float = 0.3,
        min_size: float = 0.0,
        float16: bool = False,
        suffix: str = "_log_step",
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
        per_channel: bool = False,
        least_dims: int = 2,
    ) -> None:
        self.first_step = check_number("step", step, SMALLEST_STEP, math.inf)
        self.round_from = check_number("round_from", round_from, 0, 1)
        self.least_dims = int(check_number("least_dims", least_dims, 0, 4, whole=True))
        self.noise, self.per_channel = noise_of(noise), per_channel
        check_suffix(suffix)
        self.suffix = suffix
        self._kernels = StepKernels()
        super().__init__(model, min_size, float16, exclude, detect_bound)

    def learned_tensors(self, weight: Tensors) -> Mapping[str, Learned]:
        """The logarithm of the step, (1,) or (C,), at the rate 1e-2 and without weight decay."""
        size = weight.param.detach().abs().float().mean()
        step = (self.first_step * torch.where(size > 0, size, SIZE_OF_ZEROS)).clamp(min=SMALLEST_STEP)
        steps = step.log().repeat(weight.channels if self.per_channel else 1)
        return {self.suffix: Learned(steps, {"lr": 1e-2, "weight_decay": 0.0})}

    def step(self, item: Tensors) -> Tensor:
        """The step of a tensor, (1,), or of each of its channels, (C,), differentiable."""
        return self.learned_tensor(item, self.suffix).exp()

    def _divisor(self, item: Tensors) -> Tensor:
        """The step in the shape and type that a weight is divided by."""
        return along_channels(self.step(item), item.param).to(item.param.dtype)

    @property
    def rounding(self) -> bool:
        return self.progress >= self.round_from

    def _weights_and_log_steps(self) -> tuple[list[Tensor], list[Tensor]]:
        items = self.selection.quantized
        return [item.param for item in items], [self.learned_tensor(item, self.suffix) for item in items]

    def training_values(self) -> Iterable[Tensor | None]:
        tensors, noise = self._weights_and_log_steps(), None if self.rounding else self.noise
        if serves(*tensors, noise):
            return self._kernels.values(*tensors, noise, apart=self.attachment.holding)
        return super().training_values()

    def training_value(self, item: Tensors) -> Tensor:
        weight, step = item.param, self._divisor(item)
        with torch.no_grad():
            if self.rounding:
                scaled = weight / step
                error = scaled.round().sub_(scaled)
            else:
                error = draw(self.noise, weight, step.expand_as(weight))
        return weight + step * error

    def store(self, item: Tensors, weight: Tensor) -> Stored:
        step = self.step(item).detach().float()
        largest = (weight.detach().float() / along_channels(step, weight)).round_().abs_().amax()
        width = min(int(largest.nan_to_num(posinf=0)).bit_length() + 1, MAX_STORED_BITS)
        return store_step(weight, step, width)

    def size_bits(self, exact: bool) -> Tensor:
        tensors = self._weights_and_log_steps()
        if not exact and serves(*tensors):
            return self._kernels.bits(*tensors, self.rounding) + STEP_BITS * len(self.selection.quantized)
        with torch.set_grad_enabled(not exact and torch.is_grad_enabled()):
            return torch.stack([self._kernel_bits(item, exact).sum() for item in self.selection.quantized]).sum()

    def coded_bits(self) -> Tensor:
        return self.size_bits(exact=False)

    def _kernel_bits(self, item: Tensors, rounded: bool = False) -> Tensor:
        """Estimated bits of the kernels of a tensor, (rows, columns), and of its steps."""
        levels = item.param / self._divisor(item)
        if rounded or self.rounding:
            levels = levels + (levels.round() - levels).detach()
        bits = estimated_bits(levels.abs())
        return bits + STEP_BITS * len(self.learned_tensor(item, self.suffix)) / bits.numel()

    def widths(self, item: Tensors) -> Tensor:
        """The mean bits of the entries of each row (output channel), (rows,)."""
        bits = self._kernel_bits(item, rounded=True)
        return bits.sum(1) * len(bits) / item.entries

    @torch.no_grad()
    def coarsen(self, bits: float) -> None:
        for item in self.selection.quantized:
            self.learned_tensor(item, self.suffix).add_(bits * math.log(2.0))

    def check_stored(self, item: Tensors, stored: Stored) -> None:
        check_steps(item, stored, self.learned_tensor(item, self.suffix))

    def adopt(self, item: Tensors, stored: Stored) -> None:
        with torch.no_grad():
            self.learned_tensor(item, self.suffix).copy_(stored.scales.log())
