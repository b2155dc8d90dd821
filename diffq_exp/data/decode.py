"""Image files -> one uint8 tensor, decoded once and kept on disk.

The key of the cache is made of relative paths, the bytes of the files and the wanted size. An
edit is seen however the clock stands, and a moved or copied folder is still a hit. Hashing 60,000 small files
takes a second or two, decoding them ten times that. A cache file is written beside its place and renamed,
under a lock, and carries a checksum: it is whole, or made again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..common.files import locks_explained, replacing
from ..common.names import shown_path
from ..storage.tensor_file import write_tensors
from .class_folders import read_image

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)
_CHUNK = 256  # images a thread decodes before it takes the next lot


@dataclass(frozen=True)
class Target:
    """The shape of decoded images: (channels, height, width).

    With `resize`, others are brought to this size by resizing and a centre crop; without, they are an error.
    """

    channels: int
    height: int
    width: int
    resize: bool

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"dataset.image_size={self.height} is not at least 1")


def decoded(files: Sequence[str], root: str, target: Target, cache_dir: str | None) -> Tensor:
    """The images as (N, channels, height, width) uint8, in the order of `files`, which lie under `root`.

    `cache_dir=None` keeps nothing on disk.
    """
    if cache_dir is None:
        return decode_all(_reader(files, target), len(files), target)
    path = Path(cache_dir).expanduser() / f"{_content_key(files, root, target)}.safetensors"
    return _load_or_make(path, lambda: decode_all(_reader(files, target), len(files), target))


def _reader(files: Sequence[str], target: Target) -> Callable[[int], Image.Image]:
    def read(at: int) -> Image.Image:
        return fitted(read_image(files[at], target.channels), target, shown_path(files[at]))

    return read


def _content_key(files: Sequence[str], root: str, target: Target) -> str:
    digest = hashlib.sha256(f"format 1, {target}".encode())
    for file in files:
        try:
            with open(file, "rb", buffering=0) as stream:
                content = stream.readall()
        except OSError as error:
            raise ValueError(f"cannot read the image {shown_path(file)}: {error}") from error
        name = os.fsencode(os.path.relpath(file, root))
        digest.update(b"\0%b\0%d\0" % (name, len(content)))
        digest.update(content)
    return digest.hexdigest()[:32]


def decode_all(read: Callable[[int], Image.Image], count: int, target: Target) -> Tensor:
    """The images read(0) to read(count - 1) of the target's size, as (count, channels, height, width) uint8."""
    shape = (count, target.height, target.width, target.channels)  # channels last, as PIL gives them
    pixels = np.empty(shape, np.uint8)

    def decode_chunk(start: int) -> None:
        for at in range(start, min(start + _CHUNK, count)):
            pixels[at] = np.asarray(read(at)).reshape(shape[1:])

    with ThreadPoolExecutor(_cores()) as pool:
        for _ in pool.map(decode_chunk, range(0, count, _CHUNK)):
            pass  # read again in order, so that the first error is raised
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def fitted(image: Image.Image, target: Target, name: str) -> Image.Image:
    """An image, which `name` stands for, in the target's size. Raises: ValueError where it may not be resized."""
    from PIL import Image, ImageOps

    if image.size != (target.width, target.height):
        if not target.resize:
            given = f"{image.height}x{image.width} pixels, the first image {target.height}x{target.width}"
            raise ValueError(f"{name} has {given}; set dataset.image_size to bring all to one size")
        image = ImageOps.fit(image, (target.width, target.height), Image.Resampling.BILINEAR)
    return image


def _cores() -> int:
    """Cores this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_or_make(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """The tensor in the file, made and stored first where the file is missing or damaged."""
    from filelock import FileLock

    tensor = _load(path)  # renaming is atomic: reading needs no lock, and works where nothing can be written
    if tensor is not None:
        return tensor
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks_explained(path.parent), FileLock(path.with_suffix(".lock")):
            tensor = _load(path)  # another run may have made it in the meantime
            if tensor is None:
                tensor = make()
                _store(path, tensor)
            return tensor
    except OSError as error:
        advice = "name another, or null for no cache"
        raise ValueError(f"dataset.cache_dir={path.parent} cannot be written ({error}); {advice}") from error


def _load(path: Path) -> Tensor | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            tensor: Tensor = stored.get_tensor("images")
            checksum = (stored.metadata() or {}).get("crc32")
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        log.warning("%s is damaged (%s) and will be made again", path, error)
        return None
    if checksum != _crc32(tensor):
        log.warning("%s is damaged (checksum) and will be made again", path)
        return None
    return tensor


def _store(path: Path, tensor: Tensor) -> None:
    with replacing(path) as file:
        write_tensors(file, {"images": tensor}, {"crc32": _crc32(tensor)})


def _crc32(tensor: Tensor) -> str:
    return f"{zlib.crc32(tensor.numpy().data):08x}"
