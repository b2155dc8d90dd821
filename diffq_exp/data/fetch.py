"""torchvision's small sets, downloaded once and checked by torchvision's own checksums.

Runs that start together meet at a lock: the first one downloads, the others find the files. A complete folder
is read without the lock, so that it may be shared and read-only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from ..common.files import locks_explained
from .tensors import Part


class Fetched(TypedDict):
    train: Part
    test: Part
    classes: list[str]


def fetch(kind: str, download_root: str) -> Fetched:
    """The parts of `torchvision.datasets.<kind>` as (uint8 (N, C, H, W), targets (N,)), and its classes.

    ValueError that names the file that could not be fetched or read, and its folder.
    """
    from filelock import FileLock

    root = Path(download_root).expanduser()
    try:
        return _read(kind, root, download=False)
    except (RuntimeError, OSError, ValueError):
        pass  # not there, or not whole: the download below mends it or raises the reason
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locks_explained(root), FileLock(root / f".{kind}.lock"):
            return _read(kind, root, download=True)
    except (RuntimeError, OSError, ValueError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise ValueError(f"{kind} could not be fetched ({reason}); {_by_hand(kind, root)}") from error


def _read(kind: str, root: Path, download: bool) -> Fetched:
    from torchvision import datasets

    source = getattr(datasets, kind)
    train, test = (source(str(root), train=part, download=download) for part in (True, False))
    return {"train": _tensors(train), "test": _tensors(test), "classes": list(train.classes)}


def _tensors(dataset: Any) -> Part:
    """(N, H, W) of grey and (N, H, W, 3) of colour images -> (N, C, H, W), with targets (N,)."""
    pixels = torch.as_tensor(dataset.data)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
    return pixels, torch.as_tensor(dataset.targets)


def _by_hand(kind: str, root: Path) -> str:
    from torchvision import datasets

    source = getattr(datasets, kind)
    folder, files = (root, [source.filename]) if hasattr(source, "filename") else (root / kind / "raw", None)
    files = files or [name for name, _ in source.resources]
    return f"put {', '.join(files)} into {folder} by hand; replace files that are there"
