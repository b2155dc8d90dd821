"""Data sets of the Hugging Face hub, or of a folder (hub.py): images with classes, and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from .base import ImageData, Loading
from .class_folders import check_channels, decode_image
from .decode import Target, decode_all, fitted
from .digest import of_sample
from .hub import column_of, library, load, only
from .images import from_images
from .tensors import Part
from .text import BYTES, TextData, Windows

if TYPE_CHECKING:
    from PIL import Image


def huggingface(
    *,
    name: str,
    subset: str | None,
    revision: str | None,
    train: str,
    val: str | None,
    test: str,
    image: str | None,
    label: str | None,
    image_size: int | None,
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    max_memory_mb: float,
    crop: int,
    min_scale: float,
    **loading: Unpack[Loading],
) -> ImageData:
    """image, label: columns; None takes the only one of its kind. image_size and what follows: as `from_images`.

    Raises: ValueError naming what the set lacks, or why it could not be fetched.
    """
    check_channels(channels)
    splits = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    rows = load(name, subset, revision, splits)
    image, label = (
        image or only(rows["train"], "Image", "image"),
        label or only(rows["train"], "ClassLabel", "label"),
    )
    classes = _classes(rows["train"], label)
    parts = {
        part: Rows(found, f"{name}, {splits[part]}", image, label, classes, channels)
        for part, found in rows.items()
    }
    return from_images(
        parts, lambda part, target: part.decoded(target), name=name, where=f"dataset.name={name}", classes=classes,
        first_size=parts["train"].first_size, image_size=image_size, channels=channels, mean=mean, std=std,
        max_memory_mb=max_memory_mb, crop=crop, min_scale=min_scale,
        digest=lambda: {part: found.digest() for part, found in parts.items()}, **loading,
    )  # fmt: skip


def huggingface_text(
    *,
    name: str,
    subset: str | None,
    revision: str | None,
    train: str,
    val: str | None,
    test: str,
    text: str,
    length: int,
    seed: int,
    device: torch.device | str,
    batch_size: int,
) -> TextData:
    """The bytes of the column `text`, a newline after each row. Raises: as `huggingface`."""
    splits = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    rows = load(name, subset, revision, splits)
    tokens = {part: _bytes(found, f"{name}, {splits[part]}", text) for part, found in rows.items()}
    return TextData(
        name, vocabulary=BYTES, windows=Windows(length, batch_size, device, seed), train=tokens["train"],
        val=tokens.get("val"), test=tokens["test"], token_bytes=[1] * BYTES,
    )  # fmt: skip


def _classes(rows: Any, label: str) -> list[str]:
    """The names of a ClassLabel; of other labels, their values in the training part."""
    names = getattr(rows.features.get(label), "names", None)
    if names:
        return list(names)
    return sorted({str(value) for value in _labels(rows, "train", label) if value is not None})


def _labels(rows: Any, where: str, label: str) -> list[Any]:
    """The values of a column of labels."""
    kind = type(rows.features.get(label)).__name__
    if label in rows.features and kind not in ("ClassLabel", "Value"):
        raise ValueError(f"{where}: column {label!r} ({kind}) holds no classes")
    values: list[Any] = column_of(rows, where, label).to_pylist()
    return values


def _bytes(rows: object, where: str, column: str) -> Tensor:
    """(N,) uint8."""
    texts = column_of(rows, where, column).to_pylist()
    if (at := next((at for at, text in enumerate(texts) if not isinstance(text, str)), None)) is not None:
        raise ValueError(f"{where}, row {at}: column {column!r} holds a {type(texts[at]).__name__}, no text")
    content = "".join(f"{text}\n" for text in texts).encode()
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8).copy())


class Rows(Dataset[Any]):
    """Pairs of a PIL image and its number among `classes`. targets: (N,) int64."""

    def __init__(
        self, rows: Any, where: str, image: str, label: str, classes: Sequence[str], channels: int
    ) -> None:
        self.rows = _images(rows, where, image)
        self.where, self.image, self.channels = where, image, channels
        self.targets = torch.tensor(_numbers(rows, where, label, classes))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = decode_image(self.encoded(index), f"{self.where}, row {index}", self.channels)
        return image, int(self.targets[index])

    def encoded(self, index: int) -> bytes:
        """The file of an image. Raises: ValueError naming a row that has none, or whose file cannot be read."""
        found, row = self.rows[index][self.image] or {}, f"{self.where}, row {index}"
        if (content := found.get("bytes")) is None and found.get("path") is None:
            raise ValueError(f"{row}: has no image")
        try:
            return Path(found["path"]).read_bytes() if content is None else content
        except OSError as error:
            raise ValueError(f"cannot read the image {row}: {found['path']} ({error.strerror})") from error

    def first_size(self) -> tuple[int, int]:
        """Height and width."""
        width, height = self[0][0].size
        return height, width

    def decoded(self, target: Target) -> Part:
        """All images in the target's size, and their classes."""

        def read(index: int) -> Image.Image:
            return fitted(self[index][0], target, f"{self.where}, row {index}")

        return decode_all(read, len(self), target), self.targets

    def digest(self) -> str:
        return of_sample(self.targets, len(self), self.encoded)


def _images(rows: Any, where: str, image: str) -> Any:
    """The column of images alone, not decoded. Raises: ValueError where there is none."""
    if image not in rows.features:
        raise ValueError(f"{where}: no column {image!r}; there are {', '.join(rows.features)}")
    if len(rows) == 0:
        raise ValueError(f"{where}: has no rows")
    try:
        return rows.select_columns([image]).cast_column(image, library().Image(decode=False))
    except (NotImplementedError, TypeError, ValueError) as error:  # of pyarrow
        kind = type(rows.features[image]).__name__
        raise ValueError(f"{where}: column {image!r} ({kind}) holds no images") from error


def _numbers(rows: Any, where: str, label: str, classes: Sequence[str]) -> list[int]:
    """The number among `classes` of each row. Splits are compared by names: each may number its own otherwise."""
    values, names = _labels(rows, where, label), getattr(rows.features[label], "names", None)
    called = [_name(value, names) for value in values]
    known = {name: number for number, name in enumerate(classes)}
    found = [-1 if name is None else known.get(name, -1) for name in called]
    if -1 in found:
        at = found.index(-1)
        shown = values[at] if called[at] is None else called[at]
        raise ValueError(f"{where}, row {at}: label {shown!r} is none of the {len(classes)} classes of train")
    return found


def _name(label: Any, names: Sequence[str] | None) -> str | None:
    """The class that a label stands for; None where it stands for none. names: of a ClassLabel."""
    if label is None or not names:
        return None if label is None else str(label)
    return names[label] if 0 <= label < len(names) else None
