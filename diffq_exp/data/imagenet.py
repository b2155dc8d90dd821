"""ImageNet-1k (ILSVRC 2012) as it is commonly unpacked: train/<wnid>/*.JPEG and val/<wnid>/*.JPEG.

Its test labels are not public: published marks are those of the 50,000 validation images, which are the test
part here. A validation part, if wanted, is held out of the training images, as everywhere else.
"""

from __future__ import annotations

from typing_extensions import Unpack

from .base import ImageData, Loading
from .class_folders import open_parts
from .pixels import IMAGENET_MEAN, IMAGENET_STD
from .streams import from_datasets


def imagenet(*, root: str, image_size: int, min_scale: float, **loading: Unpack[Loading]) -> ImageData:
    """Nothing is downloaded: ImageNet is given out by its owners only, to those who accept their terms."""
    parts = open_parts(root, ["train", "val"], channels=3)
    return from_datasets(
        train=parts["train"],
        test=parts["val"],
        classes=parts["train"].classes,
        name="imagenet",
        image_size=image_size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        min_scale=min_scale,
        **loading,
    )
