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
from .target import Target, fit

FITS = 6  # tries of making a file fit with its batch norms
ROUNDING_BATCHES = 50  # of training data, for the derivatives of rate-distortion rounding


@dataclass(frozen=True)
class Finish:
    """The last steps of training, in their order; None leaves one out. It changes the model as its weights say, so
    that a run that was stopped here does it again to the same end.

    averages: put into the model. batch_norm_batches: see `measure_batch_norms`. round_penalty: see `round_levels`.
    target: the size that the file is made to fit.
    """

    averages: Averages | None = None
    batch_norm_batches: int | None = None
    round_penalty: float | None = None
    target: Target | None = None

    def __call__(self, model: nn.Module, quantizer: Quantizer | None, task: Task, loader: Loader) -> None:
        if self.averages is not None:
            self.averages.exchange()
        self._measure(model, loader)
        if self.round_penalty is not None and quantizer is not None:
            round_levels(quantizer, task, loader, self.round_penalty, ROUNDING_BATCHES)
            self._measure(model, loader)
        if self.target is not None and quantizer is not None:
            self._fit(model, quantizer, loader, self.target)

    def _fit(self, model: nn.Module, quantizer: Quantizer, loader: Loader, target: Target) -> None:
        """Make the file fit. Batch norms are measured after it, which may change the file by some bytes."""
        most = target.bytes
        for _ in range(FITS):
            if fit(quantizer, most, target.file_bytes, target.finer) > most:
                break  # out of reach
            self._measure(model, loader)
            if (over := target.file_bytes() - target.bytes) <= 0:
                break
            most -= over + over // 2

    def weights(self) -> AbstractContextManager[None]:
        """The weights that are measured and stored, in the model inside a `with`: the averages, if any."""
        return self.averages.in_model() if self.averages is not None else nullcontext()

    def _measure(self, model: nn.Module, loader: Loader) -> None:
        if self.batch_norm_batches is not None:
            measure_batch_norms(model, loader, self.batch_norm_batches)
