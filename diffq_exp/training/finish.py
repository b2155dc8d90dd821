"""What is done to a trained network before it is stored."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import nn

from ..data import Loader
from ..quant.quantizer import Quantizer
from ..tasks import Task
from .averaging import Averages
from .batch_norm import measure_batch_norms
from .rounding import round_levels

ROUNDING_BATCHES = 50  # of training data, for the derivatives of rate-distortion rounding


@dataclass(frozen=True)
class Finish:
    """The last steps of training, in their order; None leaves one out. It changes the model as its weights say, so
    that a run that was stopped here does it again to the same end.

    averages: put into the model. batch_norm_batches: see `measure_batch_norms`. round_penalty: see `round_levels`.
    """

    averages: Averages | None = None
    batch_norm_batches: int | None = None
    round_penalty: float | None = None

    def __call__(self, model: nn.Module, quantizer: Quantizer | None, task: Task, loader: Loader) -> None:
        if self.averages is not None:
            self.averages.exchange()
        self._measure(model, loader)
        if self.round_penalty is not None and quantizer is not None:
            round_levels(quantizer, task, loader, self.round_penalty, ROUNDING_BATCHES)
            self._measure(model, loader)

    def weights(self) -> AbstractContextManager[None]:
        """The weights that are measured and stored, in the model inside a `with`: the averages, if any."""
        return self.averages.in_model() if self.averages is not None else nullcontext()

    def _measure(self, model: nn.Module, loader: Loader) -> None:
        if self.batch_norm_batches is not None:
            measure_batch_norms(model, loader, self.batch_norm_batches)
