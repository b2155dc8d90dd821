"""Learning-rate schedules as functions of progress: nothing to save, exact on resume at any step.

A schedule is any object with `factor(epoch, epochs)`, the share of the base rate at a real-valued epoch in
[0, epochs), and `bits`, whether the rate of the bits follows it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    bits: bool

    def factor(self, epoch: float, epochs: int) -> float: ...


@dataclass(frozen=True)
class Constant:
    bits: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Linear rise over `warmup_epochs`, then half a cosine from 1 down to `final`."""

    warmup_epochs: float = 0.0
    final: float = 0.0
    bits: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        if epoch < self.warmup_epochs:
            return max(epoch / self.warmup_epochs, 0.01)
        done = (epoch - self.warmup_epochs) / max(epochs - self.warmup_epochs, 1e-9)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Step:
    """Times `decay` after every `every` epochs."""

    every: int
    decay: float = 0.1
    bits: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        return self.decay ** (int(epoch) // self.every)


@dataclass(frozen=True)
class OneCycle:
    """Cosine rise from 1/25 to 1 at the share `peak_at` of the training, cosine fall to nearly nothing after."""

    peak_at: float = 0.3
    bits: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        done = epoch / epochs
        if done < self.peak_at:
            return _cosine_between(0.04, 1.0, done / self.peak_at)
        return _cosine_between(1.0, 4e-6, (done - self.peak_at) / (1 - self.peak_at))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
