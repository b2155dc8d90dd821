"""A task and data of your own: the angle of an edge in a small picture.

python -m diffq_exp.train --config-dir . dataset=angles task=angle penalty=0.01
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from diffq_exp.data import Data
from diffq_exp.data.order import Batches, generator, shuffled
from diffq_exp.results.headline import Headline
from diffq_exp.tasks import Task


class Angle(Task):
    """Outputs (B, 1) in units of 90 degrees, targets (B,) in degrees."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs[:, 0], targets / 90)

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        error = (90 * outputs[:, 0] - targets).abs()
        return {"squared": error.square().sum(), "within_5": (error < 5).sum()}  # sums, not means

    def finish(self, means: dict[str, float]) -> dict[str, float]:
        return {"loss": means["loss"], "within_5": means["within_5"], "rmse": math.sqrt(means["squared"])}

    def headline(self, data: Data) -> Headline:
        return Headline("rmse", "error", "degrees", higher_is_better=False, chance=26.0, tolerances=(0.2, 0.5))


class Pictures:
    """A loader is a number of examples, of batches, and `epoch`, which may begin at any batch."""

    def __init__(self, images: Tensor, angles: Tensor, batch_size: int, seed: int, train: bool) -> None:
        self.examples, self.batch_size = len(images), batch_size
        self._images, self._angles, self._seed, self._train = images, angles, seed, train
        self._batches = Batches(len(images), batch_size)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = shuffled(self.examples, self._seed, epoch) if self._train else torch.arange(self.examples)
        for batch in self._batches.starting_at(first_batch):
            start, stop = self._batches.bounds(batch)
            chosen = order[start:stop].to(self._images.device)
            yield self._images[chosen], self._angles[chosen]


def angles(count: int, noise: float, seed: int, batch_size: int, device: torch.device) -> Data:
    """Pictures (1, 8, 8), dark on one side of an edge at 0 to 90 degrees and light on the other."""

    def part(name: str, size: int) -> Pictures:
        draws = generator(name, 0)  # the same pictures for every seed
        degrees = 90 * torch.rand(size, generator=draws)
        across = torch.linspace(-1, 1, 8)
        turn = torch.deg2rad(degrees)[:, None, None]
        images = torch.tanh(3 * (across * torch.cos(turn) + across[:, None] * torch.sin(turn)))[:, None]
        images += noise * torch.randn(images.shape, generator=draws)
        return Pictures(images.to(device), degrees.to(device), batch_size, seed, train=name == "train")

    return Data(
        "angles", train=part("train", count), val=part("val", count // 4), test=part("test", count // 4),
        model_arguments={"num_classes": 1, "in_channels": 1, "image_size": 8},
        input={"shape": [1, 8, 8]}, facts={"noise": noise}, unit="pictures",
    )  # fmt: skip
