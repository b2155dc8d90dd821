"""Distillation: a trained network, the teacher, adds a term to the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """loss -> (1 - weight) * loss + weight * temperature^2 * KL(teacher, student) of softmax(logits / temperature)
    (Hinton et al. 2015, arXiv 1503.02531). The last dimension of logits is the classes.

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

    def loss(self, loss: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Raises: ValueError when the logits of the two networks have different shapes."""
        with torch.no_grad():
            told = self.model(inputs)
        if told.shape != outputs.shape or outputs.shape[-1] < 2:
            shapes = f"the teacher gives {tuple(told.shape)}, the network {tuple(outputs.shape)}"
            raise ValueError(f"{shapes}; both have to give logits of the same classes, two or more")
        student = F.log_softmax(outputs.float() / self.temperature, -1).flatten(0, -2)
        teacher = F.log_softmax(told.float() / self.temperature, -1).flatten(0, -2)
        distance = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * distance
