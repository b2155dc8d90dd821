"""Sums over predictions and the means that they give: of an epoch, and of the evaluation of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import Loader
from ..tasks import Task


class Sums:
    """Running sums over predictions, kept on the device; `means()` waits for it."""

    def __init__(self) -> None:
        self.count = 0
        self.totals: dict[str, Tensor] = {}

    def add(self, count: int, **totals: Tensor) -> None:
        self.count += count
        for name, total in totals.items():
            total = total.detach().float()
            self.totals[name] = self.totals[name] + total if name in self.totals else total

    def add_batch(self, task: Task, loss: Tensor, outputs: Tensor, targets: Tensor) -> None:
        """The mean loss of a batch and its scores."""
        count = task.count(targets)
        self.add(count, loss=loss * count, **task.scores(outputs, targets))

    def means(self) -> dict[str, float]:
        return {name: float(total) / max(self.count, 1) for name, total in self.totals.items()}


@torch.no_grad()
def mean_scores(model: nn.Module, loader: Loader, task: Task) -> dict[str, float]:
    """Mean loss and scores over all predictions of a loader, in eval mode and float32; the mode is put back."""
    training = model.training
    model.eval()
    try:
        sums = Sums()
        for inputs, targets in loader.epoch(0):
            outputs = model(inputs)
            sums.add_batch(task, task.loss(outputs, targets), outputs, targets)
        return sums.means()
    finally:
        model.train(training)


def evaluate(model: nn.Module, loader: Loader, task: Task) -> dict[str, float]:
    """The scores over a loader as the task finishes them; see `mean_scores`."""
    return task.finish(mean_scores(model, loader, task))
