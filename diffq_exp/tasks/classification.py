"""Tasks: a loss to train and scores to report. A task of one's own is any object with the same two methods."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

TOP5_FROM_CLASSES = 20


class Task(Protocol):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Sums over the batch of what is reported as a mean per image; `accuracy` among them."""


class Classification:
    """Cross entropy; top-1 accuracy, and top-5 from 20 classes on. Outputs (B, classes), targets int64 (B,)."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        scores = {"accuracy": (outputs.argmax(1) == targets).sum()}
        if outputs.shape[1] >= TOP5_FROM_CLASSES:
            top = outputs.topk(5, dim=1).indices
            scores["accuracy_top5"] = (top == targets[:, None]).any(1).sum()
        return scores
