"""Made images that can be learned: a smooth random pattern for each class, under noise.

For tests and first tries of any shape or number of classes, with nothing to read or download.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from .base import ImageData, Loading
from .order import generator
from .tensors import Part, from_tensors

CONTRAST, NOISE = 40.0, 50.0  # standard deviations of pattern and noise, in steps of 0..255


def synthetic(
    *,
    num_classes: int,
    channels: int,
    image_size: int,
    train_images: int,
    test_images: int,
    data_seed: int,
    crop: int,
    **loading: Unpack[Loading],
) -> ImageData:
    """The images depend on `data_seed` alone, so that runs of different seeds see the same set."""
    for key, value in {"num_classes": num_classes, "channels": channels, "image_size": image_size}.items():
        if value < 1:
            raise ValueError(f"dataset.{key}={value} is not at least 1")
    coarse = torch.randn(num_classes, channels, 4, 4, generator=generator("patterns", data_seed))
    patterns = F.interpolate(coarse, size=(image_size, image_size), mode="bilinear")
    return from_tensors(
        train=_noisy(patterns, train_images, generator("train", data_seed)),
        test=_noisy(patterns, test_images, generator("test", data_seed)),
        classes=[f"pattern {label}" for label in range(num_classes)],
        name="synthetic",
        crop=crop,
        **loading,
    )


def _noisy(patterns: Tensor, images: int, draws: torch.Generator) -> Part:
    """(classes, C, H, W) -> uint8 (images, C, H, W), the classes in turn."""
    targets = torch.arange(images) % len(patterns)
    noise = torch.randn(images, *patterns.shape[1:], generator=draws)
    pixels = 128 + CONTRAST * patterns[targets] + NOISE * noise
    return pixels.round().clamp(0, 255).to(torch.uint8), targets
