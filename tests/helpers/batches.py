"""A loader of fixed batches of random inputs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class Batches:
    """Three batches of 8 inputs of 4 numbers, with targets."""

    examples = 24

    def __init__(self, classes: int = 2) -> None:
        generator = torch.Generator().manual_seed(0)
        self.batches = [torch.randn(8, 4, generator=generator) for _ in range(3)]
        self.targets = [torch.randint(0, classes, (8,), generator=generator) for _ in range(3)]

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(zip(self.batches, self.targets, strict=True))[first_batch:]
