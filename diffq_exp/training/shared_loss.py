"""The loss of batches that ranks share out, whose gradients DistributedDataParallel sums while the backward runs.

What it wraps is the whole loss, not the network: a learned width may get its gradient from the penalty alone, and
hooks on the network see the calls that they see in a run of one process. The weight of a rank's loss is its share
of the predictions, times the number of ranks, by which DistributedDataParallel divides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data import Loader, Share, share_of
from ..parallel.batch_norm import statistics_of, together_in
from ..parallel.place import LEAST
from ..parallel.ranks import Ranks
from ..tasks import Task

_NAMES = signature(DistributedDataParallel).parameters
BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"  # by release of torch
Batch = tuple[Tensor, Tensor]
Weighted = tuple[Tensor, Tensor, float]
Loss = Callable[[Tensor, Tensor, float], Tensor]


class SharedLoss:
    """loss: of inputs, targets and weight. loader: of the whole batches.

    Raises: ValueError where there are too few examples for a batch of all ranks.
    """

    def __init__(self, ranks: Ranks, model: nn.Module, loss: Loss, loader: Loader, task: Task) -> None:
        if loader.examples < LEAST * ranks.world:
            needed = f"{ranks.world} ranks need {LEAST} each"
            raise ValueError(f"{loader.examples} examples to train on: {needed}; start fewer ranks")
        self.ranks, self.model, self.loader, self.task = ranks, model, loader, task
        self._whole = _Whole(model, loss)
        self._parallel: DistributedDataParallel | None = None
        self._spare: Batch | None = None

    def begin(self) -> None:
        """After a step that sent no gradients: see which parameters it reached, and send them from now on."""
        unused = any(param.grad is None for param in self.model.parameters() if param.requires_grad)
        (unused_anywhere,) = self.ranks.largest(int(unused))
        options: dict[str, Any] = {BUFFERS: False, "find_unused_parameters": bool(unused_anywhere)}
        self._parallel = DistributedDataParallel(self._whole, **options)

    def __call__(self, inputs: Tensor, targets: Tensor, weight: float) -> Tensor:
        loss: Tensor = (self._parallel or self._whole)(inputs, targets, weight)
        return loss

    def sending(self, last: bool) -> AbstractContextManager[None]:
        """For a forward and its backward: only the last one of an optimizer step sends its gradients."""
        return nullcontext() if last or self._parallel is None else self._parallel.no_sync()

    def weighted(self, batches: Sequence[Batch]) -> list[Weighted]:
        """The batches with their weights; a batch without an example here becomes one that weighs nothing."""
        counts = [self.task.count(targets) if len(inputs) else 0 for inputs, targets in batches]
        totals = [sum(of_ranks) for of_ranks in zip(*self.ranks.every(counts), strict=True)]
        return [
            (*(batch if len(batch[0]) else self._spare_batch()), self.ranks.world * count / max(total, 1))
            for batch, count, total in zip(batches, counts, totals, strict=True)
        ]

    def _spare_batch(self) -> Batch:
        """That of the first rank, which has examples in every batch."""
        if self._spare is None:
            self._spare = next(iter(share_of(self.loader, Share(0, self.ranks.world, LEAST)).epoch(0)))
        return self._spare

    def ended(self) -> None:
        """After an optimizer step: statistics of batch norms become the means of those of the ranks."""
        self.ranks.mean(statistics_of(self.model))


class _Whole(nn.Module):
    """A loss as the forward of a module that has the parameters of the network."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self._loss, self._norms = model, loss, together_in(model)

    def forward(self, inputs: Tensor, targets: Tensor, weight: float) -> Tensor:
        for norm in self._norms:  # until the next forward, as layers may run again in the backward
            norm.counted = weight != 0
        return self._loss(inputs, targets, weight)
