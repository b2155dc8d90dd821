"""What a data set is to the rest of the project: a `Data` of up to three `Loader`s.

A loader is asked for one epoch by its number and may be entered at any batch. Nothing is carried from one
epoch to the next, so that a resumed run needs two integers, not the state of a generator or of a worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict


class Loader(Protocol):
    """Batches of one part of a data set; `len(loader)` is the number of batches in an epoch."""

    images: int  # in an epoch
    batch_size: int

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, C, H, W) float32, normalised, and targets (B,) int64, both on the device.

        `epoch(e, first_batch=k)` yields, bit for bit, what `epoch(e)` yields after its first k batches.
        """
        ...


@dataclass(frozen=True)
class Data:
    """A data set, ready for training: `train` shuffles and augments, `val` and `test` go in order."""

    name: str
    classes: list[str]  # target k is classes[k]
    shape: tuple[int, int, int]  # (C, H, W) of what the model sees
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]
    train: Loader
    val: Loader | None  # None for val_fraction=0
    test: Loader


class Loading(TypedDict):
    """The keys that every source takes and hands on to `from_tensors` or `from_datasets`."""

    device: torch.device | str
    batch_size: int
    seed: int
    val_fraction: float  # of the training part, held out; 0 for none
    num_workers: NotRequired[int]
    flip: NotRequired[bool]
