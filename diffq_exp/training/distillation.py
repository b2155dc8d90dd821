"""Distillation: a trained network, the teacher, adds a term to the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..tasks import Task


class Translated(nn.Module):
    """A network for inputs that were normalised by other statistics, and for classes in another order.

    affine: scale and shift (C, 1, 1) of the inputs. order: which output stands for each class.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor | None

    def __init__(self, model: nn.Module, affine: tuple[Tensor, Tensor] | None, order: list[int] | None) -> None:
        super().__init__()
        self.model = model
        scale, shift = affine if affine is not None else (torch.ones(()), torch.zeros(()))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("order", None if order is None else torch.tensor(order))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs * self.scale + self.shift)
        return outputs if self.order is None else outputs[..., self.order]


@dataclass(frozen=True)
class Teacher:
    """loss -> (1 - weight) * loss + weight * distance, which the task says (`Task.distance`).

    Raises: ValueError unless 0 < weight <= 1 and temperature > 0.
    """

    model: nn.Module
    weight: float
    temperature: float

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1 or not self.temperature > 0:
            raise ValueError(
                f"a teacher needs 0 < weight <= 1 and temperature > 0, "
                f"not weight {self.weight:g} and temperature {self.temperature:g}"
            )
        self.model.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """The outputs to follow."""
        taught: Tensor = self.model(inputs)
        return taught

    def loss(self, task: Task, loss: Tensor, outputs: Tensor, taught: Tensor) -> Tensor:
        """Raises: ValueError when the outputs of the two networks cannot be compared."""
        return (1 - self.weight) * loss + self.weight * task.distance(outputs, taught, self.temperature)
