"""Training towards a size of the stored file, in place of a penalty that one would have to guess.

A method that learns its size has a penalty whose weight is steered, in the domain of logarithms:

    ln weight = ln(START / target) + GAIN e + INTEGRAL (integral of e over progress)
    e = ln(levels / aimed levels)

Levels are the bytes of the file that training can change, and the aimed ones what the aim leaves for them. They are
about as 1 / sqrt(weight), which is where GAIN comes from. The aim falls from the size at the beginning to a little
less than the target (UNDER) in the first third of training (RAMP), at first quickly (POWER), as a size does under a
constant penalty. Later, weights gather just below a level, and nothing but larger steps, which spoil the network,
makes the file smaller. While the levels are smaller than the aimed ones by SLACK or more there is no penalty at
all: however small, it would move the bits of weights that the loss leaves alone. Their size is the soft size, which
is known at each step, times what the coder spent on it at the end of the last epoch (on averages of the weights, if
they are what is stored: so it is aimed at their size). From FROZEN on the weight stays as it is, but without the
term of a small e, which would stay by chance. What is left at the end is closed by target.fit.

A method of one width has no penalty; its width is fitted to the aim at the end of each epoch until FROZEN_WIDTH.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..common.units import MB
from ..quant.formula import BITS_PER_MB
from ..quant.quantizer import Quantizer
from ..quant.size import Size
from .penalty import SizeControl
from .target import Target, fit

START = 0.1  # loss that the whole target is worth at first
GAIN, INTEGRAL = 2.0, 10.0
RAMP, FROZEN, FROZEN_WIDTH = 0.33, 0.95, 0.7  # shares of training
POWER = 1.5  # of the share of the ramp that is left
UNDER, SLACK, LEAST = 0.96, 0.1, 0.1  # of the target, of the aimed levels; the least that these are, of the aim
LARGEST_CHANGE = 12.0  # of ln weight: beyond it the size does not follow
SMALLEST = 1e-12  # MB of levels


class Steering(SizeControl):
    """Shared by both: the aim, and the size of the file at the end of epochs.

    target: see Target. After `begin` or `load_state_dict`, `start` is the file's size at the beginning, in bytes.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.start, self.file = target, 0, 0

    def aim(self, progress: float) -> float:
        """The bytes that the file should have at a share of training."""
        left, last = max(1 - progress / RAMP, 0.0) ** POWER, UNDER * self.target.bytes
        return float(last * max(self.start / last, 1.0) ** left)

    def begin(self, quantizer: Quantizer) -> None:
        self.start = self.file = self.target.file_bytes()

    def epoch_ended(self, quantizer: Quantizer, progress: float) -> dict[str, Any]:
        self.file = self.target.file_bytes()
        return {"steering": {"file_mb": self.file / MB, "error": math.log(self.file / self.aim(progress))}}


class SteeredPenalty(Steering):
    """The penalty of a method that learns its size. size: what it is on."""

    def __init__(self, target: Target, size: Size) -> None:
        super().__init__(target)
        self.size = size
        self.integral, self.progress, self.error = 0.0, 0.0, 0.0
        self.levels = SMALLEST  # the last soft size of what is quantized, MB
        self.ratio = 1.0  # bytes of the coder over soft bytes

    def __call__(self, quantizer: Quantizer, progress: float) -> Tensor:
        soft = self.size.soft(quantizer)
        self.levels = self._levels(quantizer, soft)
        if progress < FROZEN:
            self._steer(self.levels * MB * self.ratio / self._aimed_levels(progress), progress)
        elif abs(self.error) < SLACK:  # what the last step happened to be off by
            self.error = 0.0
        return self.weight * soft

    @staticmethod
    def _levels(quantizer: Quantizer, soft: Tensor) -> float:
        """The soft size of what is quantized, in MB."""
        return max(float(soft.detach()) - quantizer.float_bits / BITS_PER_MB, SMALLEST)

    def _aimed_levels(self, progress: float) -> float:
        """The bytes that levels should have."""
        aim = self.aim(progress)
        return max(aim - self.target.rest, LEAST * aim)

    @property
    def log_weight(self) -> float:
        """ln weight, by the formula above."""
        return math.log(START * MB / self.target.bytes) + self.integral + GAIN * self.error

    @property
    def weight(self) -> float:
        """Loss per MB: less, and at last nothing, where levels are smaller than aimed at."""
        return min(max(1 + self.error / SLACK, 0.0), 1.0) * math.exp(self.log_weight)

    def _steer(self, excess: float, progress: float) -> None:
        """excess: levels over the aimed ones."""
        error = math.log(excess)
        moved = self.integral + INTEGRAL * error * (progress - self.progress)
        self.integral, self.progress, self.error = min(max(moved, -LARGEST_CHANGE), LARGEST_CHANGE), progress, error

    def begin(self, quantizer: Quantizer) -> None:
        super().begin(quantizer)
        with torch.no_grad():
            self.levels = self._levels(quantizer, self.size.soft(quantizer))
        self._compare()

    def epoch_ended(self, quantizer: Quantizer, progress: float) -> dict[str, Any]:
        row = super().epoch_ended(quantizer, progress)
        self._compare()
        row["steering"]["penalty"] = self.weight
        return row

    def _compare(self) -> None:
        """The file with the last soft size."""
        self.ratio = max(self.file - self.target.rest, 1) / (self.levels * MB)

    def state_dict(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in STATE}

    def load_state_dict(self, state: dict[str, float], quantizer: Quantizer) -> None:
        for name in STATE:
            setattr(self, name, state[name])


STATE = ("start", "file", "integral", "progress", "error", "levels", "ratio")


class SteeredWidth(Steering):
    """The width of a method that has one for all weights; it adds nothing to the loss."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.coarsened = 0.0

    def __call__(self, quantizer: Quantizer, progress: float) -> Tensor:
        return torch.zeros(())

    def epoch_ended(self, quantizer: Quantizer, progress: float) -> dict[str, Any]:
        if progress <= FROZEN_WIDTH:
            fit(quantizer, self.aim(progress), self.target.file_bytes)
            self.coarsened = quantizer.coarsened
        return super().epoch_ended(quantizer, progress)

    def state_dict(self) -> dict[str, float]:
        return {"start": float(self.start), "file": float(self.file), "coarsened": self.coarsened}

    def load_state_dict(self, state: dict[str, float], quantizer: Quantizer) -> None:
        self.start, self.file = int(state["start"]), int(state["file"])
        quantizer.coarsened = self.coarsened = state["coarsened"]
