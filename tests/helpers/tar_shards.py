"""Tar shards of images in the layout of the webdataset library, written by it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(seed: int, size: tuple[int, int] = (8, 8)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, numbers: Iterable[int], classes: int = 2, **more: Any) -> None:
    import webdataset

    with webdataset.TarWriter(str(path)) as tar:
        for number in numbers:
            tar.write({"__key__": f"{number:04}", "png": encoded(number), "cls": number % classes, **more})
