"""Classification: cross entropy, and the share of the images whose class is right."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .base import Task

TOP5_FROM_CLASSES = 20


class Classification(Task):
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
