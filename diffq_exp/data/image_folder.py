"""Any folder of class folders: train/<class>/* and test/<class>/*, with val/<class>/* if there is one.

A set that fits is decoded to one tensor (see `decode.py` and `tensors.py`), a larger one is streamed by
workers (`streams.py`): the same YAML serves both, and `max_memory_mb` is the line between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from typing_extensions import Unpack

from ..common.units import MB
from .base import ImageData, Loading
from .class_folders import open_parts, read_image
from .decode import Target, decoded
from .streams import from_datasets
from .tensors import Part, from_tensors

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
    """`image_size` is the side in pixels, None to take the images as they are, all of one size.

    Held in memory, training images are cropped with `crop` pixels of padding, and mean and deviation are
    measured on them; streamed, they see RandomResizedCrop from `min_scale` on, and ImageNet's mean.
    """
    home = Path(root).expanduser()
    names = ["train", "val", "test"] if (home / "val").is_dir() else ["train", "test"]
    parts = open_parts(root, names, channels)
    train = parts["train"]
    size = _size_of_first(train) if image_size is None else (image_size, image_size)
    total_mb = sum(map(len, parts.values())) * channels * math.prod(size) / MB
    if total_mb <= max_memory_mb:
        target = Target(channels, *size, resize=image_size is not None)
        tensors = {name: _tensors(part, target, cache_dir) for name, part in parts.items()}
        return from_tensors(
            train=tensors["train"], val=tensors.get("val"), test=tensors["test"], classes=train.classes,
            name="image_folder", mean=mean, std=std, crop=crop, **loading,
        )  # fmt: skip
    if image_size is None:
        limit = f"decoded it takes {total_mb:.0f} MB, above dataset.max_memory_mb={max_memory_mb:g}"
        raise ValueError(f"{root}: {limit}; to stream it, set dataset.image_size")
    return from_datasets(
        train=train, val=parts.get("val"), test=parts["test"], classes=train.classes, name="image_folder",
        image_size=image_size, channels=channels, mean=mean, std=std, min_scale=min_scale, **loading,
    )  # fmt: skip


def _size_of_first(part: ImageFolder) -> tuple[int, int]:
    width, height = read_image(part.samples[0][0]).size
    return height, width


def _tensors(part: ImageFolder, target: Target, cache_dir: str | None) -> Part:
    images = decoded([file for file, _ in part.samples], str(part.root), target, cache_dir)
    return images, torch.tensor(part.targets)
