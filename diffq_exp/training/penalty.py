"""The penalty on size in the loss: weight * schedule(progress) * size in MB.

A penalty may also be steered towards a size of the file (steering.py).

A schedule of the penalty is a function of progress, the share of training that is done: nothing to save, and a
resumed run continues exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..quant.quantizer import Quantizer
from ..quant.size import Size


class PenaltySchedule(Protocol):
    def factor(self, progress: float) -> float:
        """What the weight is multiplied by when this share of training is done, 0 to 1."""


@dataclass(frozen=True)
class ConstantPenalty:
    """The whole weight from the first step on."""

    def factor(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class RampPenalty:
    """No penalty until `start`, then a linear rise to the whole weight at `end`; both are shares of training.

    Raises: ValueError unless 0 <= start < end <= 1.
    """

    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"a ramp needs 0 <= start < end <= 1, not start {self.start:g} and end {self.end:g}")

    def factor(self, progress: float) -> float:
        return min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)


class SizeControl(ABC):
    """What keeps the network small while it trains."""

    @abstractmethod
    def __call__(self, quantizer: Quantizer, progress: float) -> Tensor:
        """What is added to the task's loss of a batch, a scalar."""

    def begin(self, quantizer: Quantizer) -> None:
        """Called before the first step, not when a run is resumed."""

    def epoch_ended(self, quantizer: Quantizer, progress: float) -> dict[str, Any]:
        """Called with the weights that would be stored; -> entries for the epoch's row of metrics."""
        return {}

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, float], quantizer: Quantizer) -> None:
        """Undo `state_dict`."""


@dataclass(frozen=True)
class Penalty(SizeControl):
    """weight * schedule(progress) * size. weight: loss per MB."""

    weight: float
    size: Size
    schedule: PenaltySchedule

    def __call__(self, quantizer: Quantizer, progress: float) -> Tensor:
        return self.weight * self.schedule.factor(progress) * self.size.soft(quantizer)
