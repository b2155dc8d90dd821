"""Bits, steps and logits: how one learned number per group becomes a width and a noise size.

A group of weights has one logit l. With sigma the logistic function and s(b) = 1 / (2^b - 1) the quantization
step of b bits, in units of the tensor's range, the two parameterisations (arXiv 2104.09987) are

    "bits":   b = min_bits + (max_bits - min_bits) sigma(l)                the width is linear in sigma
    "noise":  ln s = sigma(l) ln s(max_bits) + (1 - sigma(l)) ln s(min_bits)   the log of the step is

Both are one formula, with u linear in sigma and an offset of 1 or 0:

    u = base + rise sigma(l),    1 / s = 2^u - offset,    b = log2(1 + 1/s) = log2(2^u + 1 - offset)

Plain functions of tensors, and derivatives by the logit in closed form: all that the gradients of the noisy weights
(noisy_weights.py) and of the size (formula.py) need, so that neither parameterisation costs an autograd graph. The
compiled kernels (kernels/) have the same formulas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stored.packing import MAX_STORED_BITS

LN2 = math.log(2.0)


def step_of(bits: float) -> float:
    """Quantization step 1 / (2^bits - 1) of a width, in units of the tensor's range."""
    return 1.0 / math.expm1(bits * LN2)


def stored_bits(bits: Tensor, extra_bits: float, least: int = 1) -> Tensor:
    """Widths as they are stored: clamp(round(extra_bits + bits), least, 15), uint8, same shape."""
    return torch.round(bits + extra_bits).clamp_(least, MAX_STORED_BITS).to(torch.uint8)


@dataclass(frozen=True)
class Param:
    """A parameterisation: u = base + rise sigma(l), 1 / step = 2^u - offset."""

    base: float
    rise: float
    offset: float

    @property
    def fields(self) -> dict[str, float]:
        """It as operands of kernels."""
        return {"base": self.base, "rise": self.rise, "offset": self.offset}

    def bits(self, logits: Tensor) -> Tensor:
        """Real-valued widths, (G,) -> (G,), differentiable."""
        u = self.base + self.rise * torch.sigmoid(logits)
        return u if self.offset else torch.log2(1 + torch.exp2(u))

    def step(self, logits: Tensor) -> Tensor:
        """Step s, (G,), not differentiable."""
        return self._power(torch.sigmoid(logits)).sub_(self.offset).reciprocal_()

    def step_and_slope(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Step s and d s / d l, (G,) each: d s / d u = -ln 2 2^u s^2 = -ln 2 (s + offset s^2)."""
        sigma = torch.sigmoid(logits)
        slope = torch.addcmul(sigma, sigma, sigma, value=-1).mul_(
            -LN2 * self.rise
        )  # d sigma / d l = sigma - sigma^2
        step = self._power(sigma).sub_(self.offset).reciprocal_()
        slope.mul_(step)
        return step, slope.addcmul_(slope, step) if self.offset else slope

    def bits_slope(self, logits: Tensor) -> Tensor:
        """d b / d l, (G,): d b / d u = 2^u / (2^u + 1 - offset)."""
        sigma = torch.sigmoid(logits)
        slope = torch.addcmul(sigma, sigma, sigma, value=-1).mul_(self.rise)
        if self.offset:
            return slope
        power = self._power(sigma)
        return slope.mul_(power).div_(power.add_(1))

    def _power(self, sigma: Tensor) -> Tensor:
        """2^u; overwrites sigma."""
        return sigma.mul_(self.rise).add_(self.base).exp2_()

    def sigma_of(self, bits: Tensor) -> Tensor:
        """Inverse of `bits`, before the logit: sigma that gives these widths."""
        return ((bits if self.offset else torch.log2(torch.exp2(bits) - 1)) - self.base) / self.rise


def bits_param(min_bits: float, max_bits: float) -> Param:
    """The parameterisation "bits": the width is linear in sigma(l)."""
    return Param(float(min_bits), float(max_bits - min_bits), 1.0)


def noise_param(min_bits: float, max_bits: float) -> Param:
    """The parameterisation "noise": the logarithm of the step is linear in sigma(l)."""
    narrow, wide = (-math.log2(step_of(bits)) for bits in (min_bits, max_bits))
    return Param(narrow, wide - narrow, 0.0)


PARAMS = {"bits": bits_param, "noise": noise_param}


def logits_of(bits: Tensor, param: Param, margin: float = 0.0) -> Tensor:
    """Logits that give `bits`, (G,) -> (G,).

    `margin` keeps sigma that far from 0 and 1, where the logit would be infinite: a width at the very end of
    [min_bits, max_bits] then comes back a little inside of it, and rounds to the same stored width.
    """
    sigma = param.sigma_of(bits.double()).clamp(margin, 1 - margin)
    return torch.log(sigma / (1 - sigma))
