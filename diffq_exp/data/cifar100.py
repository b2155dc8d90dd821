"""CIFAR-100: 50,000 + 10,000 colour images of 100 classes, 32 x 32 (Krizhevsky, 2009)."""

from __future__ import annotations

from typing_extensions import Unpack

from .base import ImageData, Loading
from .fetch import fetch
from .tensors import from_tensors

MEAN, STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar100(*, download_root: str, crop: int, **loading: Unpack[Loading]) -> ImageData:
    """The files are sought in `download_root` and downloaded to it when they are not there."""
    return from_tensors(
        **fetch("CIFAR100", download_root), name="cifar100", mean=MEAN, std=STD, crop=crop, **loading
    )
