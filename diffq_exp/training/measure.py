"""Sums over predictions and the means that they give: of an epoch, and of the evaluation of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..data import Loader, Share, share_of
from ..parallel.ranks import ALONE, Ranks
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

    def state_dict(self) -> list[Any]:
        """On the CPU, since other ranks have other devices."""
        return [self.count, {name: total.cpu() for name, total in self.totals.items()}]

    def take_in(self, state: list[Any], device: torch.device) -> None:
        """Add the sums of a `state_dict`."""
        self.add(int(state[0]), **{name: total.to(device).reshape(()) for name, total in state[1].items()})

    def means(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over the predictions of all ranks."""
        parts = ranks.every((self.count, {name: float(total) for name, total in self.totals.items()}))
        count = max(sum(count for count, _ in parts), 1)
        names = dict.fromkeys(name for _, totals in parts for name in totals)
        return {name: sum(totals.get(name, 0.0) for _, totals in parts) / count for name in names}


def own_share(loader: Loader, ranks: Ranks) -> Loader:
    """The loader of a rank's share of what is evaluated: its examples of each batch, none in some. Made once."""
    return share_of(loader, Share(ranks.rank, ranks.world))


@torch.no_grad()
def mean_scores(model: nn.Module, loader: Loader, task: Task, ranks: Ranks = ALONE) -> dict[str, float]:
    """Mean loss and scores over all predictions of a loader, in eval mode and float32; the mode is put back.

    ranks: with a loader of this rank's share, as `own_share` makes it; each rank gets the means over all shares.
    """
    training = model.training
    model.eval()
    try:
        sums = Sums()
        for inputs, targets in loader.epoch(0):
            if len(inputs):
                outputs = model(inputs)
                sums.add_batch(task, task.loss(outputs, targets), outputs, targets)
        return sums.means(ranks)
    finally:
        model.train(training)


def evaluate(model: nn.Module, loader: Loader, task: Task, ranks: Ranks = ALONE) -> dict[str, float]:
    """The scores over a loader as the task finishes them; see `mean_scores`."""
    return task.finish(mean_scores(model, loader, task, ranks))
