"""The contract of a task: a loss to train, scores to report, and the score that is the headline.

A batch gives sums over its predictions (images, tokens). An epoch adds them up and divides by the number of its
predictions; `finish` then computes from those means the scores that are no means, such as a perplexity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from ..data import Data
from ..results.headline import Headline


class Task(ABC):
    """Outputs are those of the model for a batch, targets those of the data set beside its inputs."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss over the predictions of a batch, a scalar."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Sums over the predictions of a batch, {name: scalar}; reports give their means."""

    def count(self, targets: Tensor) -> int:
        """The predictions of a batch: images, tokens."""
        return len(targets)

    def finish(self, means: dict[str, float]) -> dict[str, float]:
        """The reported scores, headline included, from the means of loss and scores over all predictions."""
        return means

    def distance(self, outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """How far outputs are from those of a teacher, `taught`, per prediction; a scalar.

        Here, of logits of classes, which are their last dimension: temperature^2 * KL(teacher, student) of
        softmax(logits / temperature) (Hinton et al. 2015, arXiv 1503.02531).
        Raises: ValueError where they are no logits of the same classes.
        """
        if taught.shape != outputs.shape or outputs.shape[-1] < 2:
            shapes = f"the teacher gives {tuple(taught.shape)}, the network {tuple(outputs.shape)}"
            raise ValueError(
                f"{shapes}; both have to give logits of the same classes, two or more, or the task a distance()"
            )
        student = F.log_softmax(outputs.float() / temperature, -1).flatten(0, -2)
        teacher = F.log_softmax(taught.float() / temperature, -1).flatten(0, -2)
        return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def headline(self, data: Data) -> Headline:
        """The score by which runs on `data` are compared; accuracy where a task does not say."""
        classes = data.facts.get("classes")
        return Headline(chance=1 / classes if classes else None)


@runtime_checkable
class LossAndScores(Protocol):
    """What the least of tasks has."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor: ...
    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]: ...


class AdaptedTask(Task):
    """An object with `loss` and `scores` only, as tasks were before they had a headline. It reports an accuracy."""

    def __init__(self, task: LossAndScores) -> None:
        self.task = task

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return self.task.scores(outputs, targets)


def as_task(value: object) -> Task:
    """A `Task` itself, or an object with its two methods as a `Task`. Raises: ValueError for anything else."""
    if isinstance(value, Task):
        return value
    if isinstance(value, LossAndScores):
        return AdaptedTask(value)
    raise ValueError(f"{type(value).__name__} is no task: it needs the methods loss and scores")
