"""A folder of class folders on disk: its parts, their classes, and how an image is read.

torchvision's ImageFolder walks the folders. This module checks that the parts agree on their classes, and makes
one line that names the folder or the file of every error.
"""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.names import shown_path

if TYPE_CHECKING:
    from PIL import Image
    from torchvision.datasets import ImageFolder

MODES = {1: "L", 3: "RGB"}  # channels -> PIL's name


def open_parts(root: str | Path, names: list[str], channels: int) -> dict[str, ImageFolder]:
    """The parts `root/<name>` as datasets of (PIL image, target), with the same classes in each.

    ValueError if the root or a part is not there, a class is empty, or the classes differ.
    """
    check_channels(channels)
    home = Path(root).expanduser()
    if not home.is_dir():
        raise ValueError(f"dataset.root={root}: no such folder")
    for name in names:
        if not (home / name).is_dir():
            present = sorted(entry.name for entry in home.iterdir() if entry.is_dir())
            raise ValueError(
                f"dataset.root={root} has no folder '{name}'; it needs {names}, and holds {present[:10]}"
            )
    parts = {name: _open(home / name, channels) for name in names}
    _check_same_classes(root, parts)
    return parts


def check_channels(channels: int) -> None:
    if channels not in MODES:
        raise ValueError(f"channels={channels} is neither 1 (grey) nor 3 (colour)")


def _open(folder: Path, channels: int) -> ImageFolder:
    from torchvision.datasets import ImageFolder

    try:
        part = ImageFolder(str(folder), loader=partial(read_image, channels=channels))
    except FileNotFoundError as error:  # no class folders, or a class without images
        raise ValueError(f"{shown_path(folder)}: {shown_path(error)}") from error
    for name in part.classes:
        if (shown := shown_path(name)) != name:  # it is stored with the network, in JSON
            raise ValueError(f"{shown_path(folder)}: the name of the class folder {shown} is not UTF-8; rename it")
    return part


def _check_same_classes(root: str | Path, parts: dict[str, ImageFolder]) -> None:
    first, *others = parts
    for other in others:
        ours, theirs = set(parts[first].classes), set(parts[other].classes)
        if ours != theirs:
            lone = f"only in {first}: {sorted(ours - theirs)[:5]}, in {other}: {sorted(theirs - ours)[:5]}"
            raise ValueError(f"{root}: '{first}' and '{other}' hold different classes; {lone}")


def read_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Decode a file to a PIL image of mode L or RGB; ValueError that names the file if it cannot be read."""
    return decode_image(path, shown_path(path), channels)


def decode_image(source: str | Path | bytes, name: str, channels: int) -> Image.Image:
    """The same of a file or of its content, which `name` stands for.

    16-bit and float images are refused: PIL would clip them to 255 without a word.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode[0] in "IF":
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            converted: Image.Image = image.convert(MODES[channels])
            return converted
    except Exception as error:  # PIL raises OSError, SyntaxError, EOFError, struct.error and more
        raise ValueError(f"cannot read the image {name}: {error}") from error
