"""MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 in grey (LeCun et al., 1998)."""

from __future__ import annotations

from typing_extensions import Unpack

from .base import ImageData, Loading
from .fetch import fetch
from .tensors import from_tensors

MEAN, STD = (0.1307,), (0.3081,)


def mnist(*, download_root: str, crop: int, **loading: Unpack[Loading]) -> ImageData:
    """The files are sought in `download_root` and downloaded to it when they are not there."""
    return from_tensors(**fetch("MNIST", download_root), name="mnist", mean=MEAN, std=STD, crop=crop, **loading)
