"""Sums over images and what they give: the means of an epoch, and the evaluation of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import Loader
from ..tasks.classification import Task


class Sums:
    """Running sums over images, kept on the device; `means()` waits for it."""

    def __init__(self) -> None:
        self.images = 0
        self.totals: dict[str, Tensor] = {}

    def add(self, images: int, **totals: Tensor) -> None:
        self.images += images
        for name, total in totals.items():
            total = total.detach().float()
            self.totals[name] = self.totals[name] + total if name in self.totals else total

    def means(self) -> dict[str, float]:
        return {name: float(total) / max(self.images, 1) for name, total in self.totals.items()}


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, task: Task) -> dict[str, float]:
    """Mean loss and scores over a loader, in eval mode and float32; the model's mode is put back."""
    training = model.training
    model.eval()
    try:
        sums = Sums()
        for images, targets in loader.epoch(0):
            outputs = model(images)
            loss = task.loss(outputs, targets) * len(targets)
            sums.add(len(targets), loss=loss, **task.scores(outputs, targets))
        return sums.means()
    finally:
        model.train(training)
