"""Data sets of the Hugging Face hub, or of a folder, by the datasets library: images with classes, and text.

The library downloads a set once and keeps it as Arrow files, whose rows are read at random. A split may be cut by
its own notation: 'train[:90%]'.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from typing_extensions import Unpack

from ..common.files import user_path
from .base import ImageData, Loading
from .class_folders import check_channels, decode_image
from .decode import Target, decode_all, fitted
from .digest import of_sample
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
        image or _only(rows["train"], "Image", "image"),
        label or _only(rows["train"], "ClassLabel", "label"),
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


def load(name: str, subset: str | None, revision: str | None, splits: dict[str, str]) -> dict[str, Any]:
    """{part: rows} of a set of the hub, of a folder of data files, or of a folder that `save_to_disk` made.

    Raises: ValueError where the library is not installed, or could not load it, with its reason in one line.
    """
    library, folder = _library(), user_path(name)
    try:
        if (folder / "dataset_dict.json").is_file():
            saved = library.load_from_disk(str(folder))
            return {part: _split(saved, split) for part, split in splits.items()}
        source = str(folder) if folder.is_dir() else name
        return {
            part: library.load_dataset(source, subset, revision=revision, split=split)
            for part, split in splits.items()
        }
    except Exception as error:  # of the library, the hub, the network, the disk
        reason = " ".join(str(error).split())
        raise ValueError(f"dataset.name={name}: {type(error).__name__}: {reason}") from error


def _split(saved: Any, split: str) -> object:
    if split not in saved:
        raise ValueError(f"no split {split!r}; there are {', '.join(saved)}")
    return saved[split]


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset=huggingface needs the package datasets: pip install datasets") from error
    library: ModuleType = datasets
    return library


def _only(rows: Any, kind: str, key: str) -> str:
    """The name of the only column of a kind."""
    found = [name for name, feature in rows.features.items() if type(feature).__name__ == kind]
    if len(found) != 1:
        columns = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in rows.features.items())
        raise ValueError(f"dataset.{key}: which column? There are: {columns}")
    return str(found[0])


def _column(rows: Any, where: str, name: str) -> Any:
    if name not in rows.features:
        raise ValueError(f"{where}: no column {name!r}; there are {', '.join(rows.features)}")
    return rows.select_columns([name]).with_format("arrow")[:][name]


def _classes(rows: Any, label: str) -> list[str]:
    """The names of a ClassLabel; of other labels, their values in the training part."""
    feature = rows.features.get(label)
    names = getattr(feature, "names", None)
    return list(names) if names else sorted({str(value) for value in _column(rows, "train", label).to_pylist()})


def _bytes(rows: object, where: str, column: str) -> Tensor:
    """(N,) uint8."""
    texts = _column(rows, where, column).to_pylist()
    if any(not isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: column {column!r} is no text in each row")
    content = "".join(f"{text}\n" for text in texts).encode()
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8).copy())


class Rows(Dataset[Any]):
    """Pairs of a PIL image and its number among `classes`. targets: (N,) int64."""

    def __init__(
        self, rows: Any, where: str, image: str, label: str, classes: Sequence[str], channels: int
    ) -> None:
        if image not in rows.features:
            raise ValueError(f"{where}: no column {image!r}; there are {', '.join(rows.features)}")
        self.rows = rows.select_columns([image]).cast_column(image, _library().Image(decode=False))
        self.where, self.image, self.channels = where, image, channels
        self.targets = torch.tensor(_numbers(rows, where, label, classes))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image = decode_image(self.encoded(index), f"{self.where}, row {index}", self.channels)
        return image, int(self.targets[index])

    def encoded(self, index: int) -> bytes:
        """The file of an image."""
        found = self.rows[index][self.image]
        return found["bytes"] if found["bytes"] is not None else Path(found["path"]).read_bytes()

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


def _numbers(rows: Any, where: str, label: str, classes: Sequence[str]) -> list[int]:
    values = _column(rows, where, label).to_pylist()
    known: dict[object, int] = {name: number for number, name in enumerate(classes)}
    if getattr(rows.features[label], "names", None):
        known = {number: number for number in known.values()}
    else:
        values = [str(value) for value in values]
    found = [known.get(value, -1) for value in values]
    if -1 in found:
        at = found.index(-1)
        raise ValueError(f"{where}, row {at}: label {values[at]!r} is none of the {len(classes)} classes")
    return found
