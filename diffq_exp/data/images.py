"""Images of any source, by their size: in memory on the training device where they fit there, else streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from ..common.units import MB
from .base import ImageData, Loading
from .decode import Target
from .streams import from_datasets
from .tensors import Part, from_tensors


def from_images(
    parts: Mapping[str, Any],
    decode: Callable[[Any, Target], Part],
    *,
    name: str,
    where: str,
    classes: Sequence[str],
    first_size: Callable[[], tuple[int, int]],
    image_size: int | None,
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    max_memory_mb: float,
    crop: int,
    min_scale: float,
    digest: Callable[[], Mapping[str, str]] | None = None,
    **loading: Unpack[Loading],
) -> ImageData:
    """parts: "train", "test" and perhaps "val", map-style datasets; decode: of a part, all of its images at once.

    where: for messages. image_size: the side in pixels; None takes the images as they are, all of the size (height,
    width) of the first. digest: of a streamed set, where its parts are no image folders. Held in memory, training
    images are cropped with `crop` pixels of padding, and mean and deviation are measured on them; streamed, they
    see RandomResizedCrop from `min_scale` on, and ImageNet's mean.
    Raises: ValueError for a set that is too large to be taken as it is.
    """
    size = first_size() if image_size is None else (image_size, image_size)
    total_mb = sum(map(len, parts.values())) * channels * math.prod(size) / MB
    if total_mb <= max_memory_mb:
        target = Target(channels, *size, resize=image_size is not None)
        tensors = {part: decode(found, target) for part, found in parts.items()}
        return from_tensors(
            train=tensors["train"], val=tensors.get("val"), test=tensors["test"], classes=classes, name=name,
            mean=mean, std=std, crop=crop, **loading,
        )  # fmt: skip
    if image_size is None:
        limit = f"decoded it takes {total_mb:.0f} MB, above dataset.max_memory_mb={max_memory_mb:g}"
        raise ValueError(f"{where}: {limit}; to stream it, set dataset.image_size")
    return from_datasets(
        train=parts["train"], val=parts.get("val"), test=parts["test"], classes=classes, name=name,
        image_size=image_size, channels=channels, mean=mean, std=std, min_scale=min_scale,
        digest=None if digest is None else digest(), **loading,
    )  # fmt: skip
