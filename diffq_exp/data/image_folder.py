"""Any folder of class folders: train/<class>/* and test/<class>/*, with val/<class>/* if there is one.

A set that fits is decoded to one tensor (see `decode.py` and `tensors.py`), a larger one is streamed by
workers (`streams.py`): the same YAML serves both, and `max_memory_mb` is the line between them (`images.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from typing_extensions import Unpack

from .base import ImageData, Loading
from .class_folders import open_parts, read_image
from .decode import Target, decoded
from .images import from_images
from .tensors import Part

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


def image_folder(
    *,
    root: str,
    image_size: int | None,
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    max_memory_mb: float,
    cache_dir: str | None,
    crop: int,
    min_scale: float,
    **loading: Unpack[Loading],
) -> ImageData:
    """`image_size` and what follows: as `from_images`. `cache_dir`: of decoded images; None keeps nothing."""
    home = Path(root).expanduser()
    names = ["train", "val", "test"] if (home / "val").is_dir() else ["train", "test"]
    parts = open_parts(root, names, channels)
    return from_images(
        parts, lambda part, target: _tensors(part, target, cache_dir), name="image_folder", where=root,
        classes=parts["train"].classes, first_size=lambda: _size_of_first(parts["train"]), image_size=image_size,
        channels=channels, mean=mean, std=std, max_memory_mb=max_memory_mb, crop=crop, min_scale=min_scale,
        **loading,
    )  # fmt: skip


def _size_of_first(part: ImageFolder) -> tuple[int, int]:
    width, height = read_image(part.samples[0][0]).size
    return height, width


def _tensors(part: ImageFolder, target: Target, cache_dir: str | None) -> Part:
    images = decoded([file for file, _ in part.samples], str(part.root), target, cache_dir)
    return images, torch.tensor(part.targets)
