"""CIFAR-10: 50,000 + 10,000 colour images of 10 classes, 32 x 32 (Krizhevsky, 2009).

The deviations are those of all training pixels. Much code, that of the DiffQ paper included, has 0.2023,
0.1994, 0.2010 instead, the mean of the deviations within single images.
"""

from __future__ import annotations

from typing_extensions import Unpack

from .base import ImageData, Loading
from .fetch import fetch
from .tensors import from_tensors

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def cifar10(*, download_root: str, crop: int, **loading: Unpack[Loading]) -> ImageData:
    """The files are sought in `download_root` and downloaded to it when they are not there."""
    return from_tensors(**fetch("CIFAR10", download_root), name="cifar10", mean=MEAN, std=STD, crop=crop, **loading)
