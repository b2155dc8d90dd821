"""Bits, steps and logits: how one learned number per group becomes a width and a noise size.

A group of weights has one logit l. With sigma the logistic function and s(b) = 1 / (2^b - 1) the quantization
step of b bits, in units of the tensor's range, the two parameterisations (arXiv 2104.09987) are

    "bits":   b = min_bits + (max_bits - min_bits) sigma(l)                the width is linear in sigma
    "noise":  ln s = sigma(l) ln s(max_bits) + (1 - sigma(l)) ln s(min_bits)   the log of the step is

Plain functions of tensors. The rises (derivatives by the logit) are all that the closed-form gradients of the noisy
weights (noise.py) and of the size (size.py) need, so that neither parameterisation costs an autograd graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LN2 = math.log(2.0)
MAX_STORED_BITS = 15


def step_of(bits: float) -> float:
    """Quantization step 1 / (2^bits - 1) of a width, in units of the tensor's range."""
    return 1.0 / math.expm1(bits * LN2)


def stored_bits(bits: Tensor, extra_bits: float) -> Tensor:
    """Widths as they are stored: clamp(round(extra_bits + bits), 1, 15), uint8, same shape."""
    return torch.round(bits + extra_bits).clamp_(1, MAX_STORED_BITS).to(torch.uint8)


@dataclass(frozen=True)
class BitsParam:
    """The parameterisation "bits": the width is linear in sigma(l)."""

    min_bits: float
    max_bits: float

    def bits(self, logits: Tensor) -> Tensor:
        """Real-valued widths, (G,) -> (G,), differentiable."""
        return self.min_bits + (self.max_bits - self.min_bits) * torch.sigmoid(logits)

    def sum_bits(self, logits: Tensor, spare: Tensor | None = None) -> Tensor:
        """The sum of the widths, (); computed in `spare`."""
        total = torch.sigmoid(logits, out=spare).sum()
        return total * (self.max_bits - self.min_bits) + self.min_bits * logits.numel()

    def step(self, logits: Tensor, out: Tensor | None = None) -> Tensor:
        """Step s, (G,), not differentiable; in `out` where it is given."""
        return self._step(torch.sigmoid(logits, out=out))

    def step_and_rise(
        self, logits: Tensor, step: Tensor | None = None, rise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Step s and d s / d l, (G,) each, in the tensors given: d s / d b = -ln 2 (s + s^2)."""
        sigma = torch.sigmoid(logits, out=step)
        width = self.max_bits - self.min_bits
        rise = torch.addcmul(sigma, sigma, sigma, value=-1, out=rise).mul_(-LN2 * width)  # sigma (1 - sigma)
        step = self._step(sigma)
        return step, rise.mul_(step).addcmul_(rise, step)

    def bits_rise(self, logits: Tensor, rise: Tensor | None = None, spare: Tensor | None = None) -> Tensor:
        """d b / d l, (G,), in `rise`; computed in `spare`."""
        sigma = torch.sigmoid(logits, out=spare)
        return torch.addcmul(sigma, sigma, sigma, value=-1, out=rise).mul_(self.max_bits - self.min_bits)

    def _step(self, sigma: Tensor) -> Tensor:
        """Overwrites sigma."""
        return sigma.mul_(self.max_bits - self.min_bits).add_(self.min_bits).exp2_().sub_(1).reciprocal_()

    def sigma_of(self, bits: Tensor) -> Tensor:
        """Inverse of `bits`, before the logit: sigma that gives these widths."""
        return (bits - self.min_bits) / (self.max_bits - self.min_bits)


@dataclass(frozen=True)
class NoiseParam:
    """The parameterisation "noise": the logarithm of the step is linear in sigma(l)."""

    min_bits: float
    max_bits: float

    @property
    def _log_steps(self) -> tuple[float, float]:
        """ln s of the narrowest and of the widest group."""
        return math.log(step_of(self.min_bits)), math.log(step_of(self.max_bits))

    def bits(self, logits: Tensor) -> Tensor:
        """Real-valued widths log2(1 + 1/s), (G,) -> (G,), differentiable."""
        narrow, wide = self._log_steps
        return torch.log2(1 + torch.exp(-narrow - (wide - narrow) * torch.sigmoid(logits)))

    def sum_bits(self, logits: Tensor, spare: Tensor | None = None) -> Tensor:
        """The sum of the widths, (); computed in `spare`."""
        narrow, wide = self._log_steps
        inverse = torch.sigmoid(logits, out=spare).mul_(narrow - wide).sub_(narrow).exp_()  # 1 / s
        return inverse.add_(1).log2_().sum()

    def step(self, logits: Tensor, out: Tensor | None = None) -> Tensor:
        """Step s, (G,), not differentiable; in `out` where it is given."""
        return self._step(torch.sigmoid(logits, out=out))

    def step_and_rise(
        self, logits: Tensor, step: Tensor | None = None, rise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Step s and d s / d l, (G,) each, in the tensors given."""
        narrow, wide = self._log_steps
        sigma = torch.sigmoid(logits, out=step)
        rise = torch.addcmul(sigma, sigma, sigma, value=-1, out=rise).mul_(wide - narrow)  # sigma (1 - sigma)
        step = self._step(sigma)
        return step, rise.mul_(step)

    def bits_rise(self, logits: Tensor, rise: Tensor | None = None, spare: Tensor | None = None) -> Tensor:
        """d b / d l, (G,), in `rise`; computed in `spare`: d b / d s = -1 / (ln 2 (s + s^2))."""
        step, rise = self.step_and_rise(logits, spare, rise)
        return rise.div_(step).div_(step.add_(1)).mul_(-1 / LN2)

    def _step(self, sigma: Tensor) -> Tensor:
        """Overwrites sigma."""
        narrow, wide = self._log_steps
        return sigma.mul_(wide - narrow).add_(narrow).exp_()

    def sigma_of(self, bits: Tensor) -> Tensor:
        """Inverse of `bits`, before the logit: sigma that gives these widths."""
        narrow, wide = self._log_steps
        return (-torch.log(torch.exp2(bits) - 1) - narrow) / (wide - narrow)


Param = BitsParam | NoiseParam
PARAMS: dict[str, type[BitsParam] | type[NoiseParam]] = {"bits": BitsParam, "noise": NoiseParam}


def logits_of(bits: Tensor, param: Param, margin: float = 0.0) -> Tensor:
    """Logits that give `bits`, (G,) -> (G,).

    `margin` keeps sigma that far from 0 and 1, where the logit would be infinite: a width at the very end of
    [min_bits, max_bits] then comes back a little inside of it, and rounds to the same stored width.
    """
    sigma = param.sigma_of(bits.double()).clamp(margin, 1 - margin)
    return torch.log(sigma / (1 - sigma))
