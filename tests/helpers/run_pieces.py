"""Small networks, and pieces such as a user brings along, by `_target_` or by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer
from torch.utils.checkpoint import checkpoint

from diffq_exp.data import Data
from diffq_exp.data.synthetic import synthetic
from diffq_exp.data.tensors import from_tensors
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.quant.size import FormulaSize
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.optim import Optimizers, make_optimizers
from diffq_exp.training.penalty import ConstantPenalty, Penalty
from diffq_exp.training.schedule import Cosine
from diffq_exp.training.settings import Settings
from diffq_exp.training.trainer import Trainer

CPU = torch.device("cpu")


# ---- networks -----------------------------------------------------------------------------------------------


class TinyNet(nn.Module):
    """A convolution and a linear layer, without batch norm: 8 x 8 images of one channel."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Linear(8 * 64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(functional.relu(self.conv(images)).flatten(1))


class CheckpointedNet(TinyNet):
    """Runs its layers and a dropout again in the backward, if asked; what it computes is the same."""

    def __init__(self, num_classes: int = 4, again: bool = True) -> None:
        super().__init__(num_classes)
        self.norm, self.again = nn.BatchNorm2d(8), again

    def layers(self, images: Tensor) -> Tensor:
        features = functional.relu(functional.dropout(self.conv(images), 0.2, self.training))
        return self.head(features.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        images = self.norm(images.expand(-1, 8, -1, -1))[:, :1] + images
        return checkpoint(self.layers, images, use_reentrant=False) if self.again else self.layers(images)


class RandomNet(TinyNet):
    """Draws from every random generator in training, and has the buffers of a batch norm."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(num_classes)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.3)

    def forward(self, images: Tensor) -> Tensor:
        features = self.dropout(functional.relu(self.norm(self.conv(images))))
        if self.training:
            features = features * (1 + 0.2 * random.random() + 0.2 * random.gauss(0, 1))
            features = features + float(np.random.standard_normal()) * 0.1
        return self.head(features.flatten(1))


# ---- a user's own -------------------------------------------------------------------------------------------


class OwnNet(TinyNet):
    """Takes one of the keys that a model is offered, and one of its YAML."""

    def __init__(self, num_classes: int, slope: float) -> None:
        super().__init__(num_classes)
        self.slope = slope

    def forward(self, images: Tensor) -> Tensor:
        return self.head(functional.leaky_relu(self.conv(images), self.slope).flatten(1))


def own_data(images: int, device: Any, batch_size: int) -> Data:
    """Takes two of the keys that a data set is offered, and one of its YAML."""
    draws = torch.Generator().manual_seed(5)
    targets = torch.arange(images) % 3
    pixels = torch.randint(0, 100, (images, 1, 8, 8), generator=draws) + 60 * targets[:, None, None, None]
    part = (pixels.to(torch.uint8), targets)
    return from_tensors(
        train=part, test=part, val=None, classes=["a", "b", "c"], name="own", device=device,
        batch_size=batch_size, seed=0,
    )  # fmt: skip


class OwnTask:
    """A margin loss, and a score that no other task has."""

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = margin

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.multi_margin_loss(outputs, targets, margin=self.margin)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        right = outputs.argmax(1) == targets
        return {"accuracy": right.sum(), "class_0": (right & (targets == 0)).sum()}


class Focal(OwnTask):
    """Takes nothing of what conf/task/classification.yaml says."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__(margin=gamma / 4)


class Halves:
    """A schedule without any argument."""

    bits = False

    def factor(self, epoch: float, epochs: int) -> float:
        return 0.5


class NoNet:
    """A network whose run begins, and fails at once."""

    def __init__(self) -> None:
        raise ValueError("a NoNet is not built")


class OwnOptimizer(Optimizer):
    """The sign of the gradient."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.sub_(group["lr"] * param.grad.sign())


class OwnQuantizer(UniformQuantizer):
    """Ternary."""

    method = "ternary"

    def __init__(self, model: nn.Module, least: float) -> None:
        super().__init__(model, bits=1.6, min_size=least, qat=True)


# ---- trainers by hand ---------------------------------------------------------------------------------------

QUANTIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "none": lambda model: None,
    "diffq": lambda model: DiffQuantizer(model, min_size=0.0005, group_size=4),
    "uniform_noise": lambda model: DiffQuantizer(model, 0.0005, group_size=8, noise="uniform", param="noise"),
    "qat": lambda model: UniformQuantizer(model, bits=4, min_size=0.0005, qat=True),
    "lsq": lambda model: LSQ(model, bits=4, min_size=0.0005),
    "rate": lambda model: RateQuantizer(model, round_from=0.5),
}
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda params: Adam(params, lr=0.01),
    "sgd": lambda params: SGD(params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "plain": lambda params: SGD(params, lr=0.1),
}


def tiny_data(
    images: int = 32, classes: int = 4, batch_size: int = 8, val_fraction: float = 0.25, **changes: Any
) -> Data:
    """By default 24 images in 3 batches of training, 8 of validation, augmented by crops."""
    keys = {"channels": 1, "image_size": 8, "test_images": classes, "data_seed": 0, "crop": 1, "seed": 0}
    return synthetic(
        num_classes=classes, train_images=images, batch_size=batch_size, val_fraction=val_fraction, device=CPU,
        **{**keys, **changes},
    )  # fmt: skip


def tiny_optimizers(
    model: nn.Module, quantizer: str = "diffq", optimizer: str = "adam", bits_lr: float = 0.05
) -> tuple[Optimizers, Any]:
    options = {"lr": bits_lr} if quantizer in ("diffq", "uniform_noise") else {}
    return make_optimizers(model, OPTIMIZERS[optimizer], lambda: QUANTIZERS[quantizer](model), options)


def tiny_trainer(
    folder: Path,
    *,
    quantizer: str = "diffq",
    optimizer: str = "adam",
    net: Callable[[], nn.Module] = TinyNet,
    data: Data | None = None,
    schedule: Any = None,
    task: Any = None,
    listeners: Any = (),
    seed: int = 0,
    run_id: str = "first",
    **settings: Any,
) -> Trainer:
    """A trainer of small objects; `settings` are those of `Settings`, 3 epochs of penalty 5 by default."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    folder.mkdir(exist_ok=True)
    model = net()
    optimizers, made = tiny_optimizers(model, quantizer, optimizer)
    weight = settings.pop("penalty", 5.0)
    learns_size = quantizer in ("diffq", "uniform_noise", "rate")
    penalty = Penalty(weight, FormulaSize(), ConstantPenalty()) if learns_size else None
    return Trainer(
        model, made, optimizers, schedule or Cosine(), task or Classification(), data or tiny_data(),
        Settings(**{"epochs": 3, **settings}), device=CPU, folder=folder, run_id=run_id,
        listeners=list(listeners), penalty=penalty,
    )  # fmt: skip
