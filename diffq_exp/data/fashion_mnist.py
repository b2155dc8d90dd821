"""Fashion-MNIST: 60,000 + 10,000 pieces of clothing, 28 x 28 in grey (Xiao et al., 2017)."""

from __future__ import annotations

from typing_extensions import Unpack

from .base import ImageData, Loading
from .fetch import fetch
from .tensors import from_tensors

MEAN, STD = (0.2860,), (0.3530,)


def fashion_mnist(*, download_root: str, crop: int, **loading: Unpack[Loading]) -> ImageData:
    """The files are sought in `download_root` and downloaded to it when they are not there."""
    return from_tensors(
        **fetch("FashionMNIST", download_root), name="fashion_mnist", mean=MEAN, std=STD, crop=crop, **loading
    )
