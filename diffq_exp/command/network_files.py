"""The files of a network that was not trained here: one, or the parts that an index names.

A folder is a folder of Hugging Face, as `save_pretrained` writes it and the hub's cache keeps it. No torch here.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from omegaconf import DictConfig

from ..common.files import user_path

INDEX = ".index.json"  # names the file of each tensor
IN_A_FOLDER = (  # looked for in this order
    f"model.safetensors{INDEX}",
    "model.safetensors",
    f"pytorch_model.bin{INDEX}",
    "pytorch_model.bin",
)
OF_FOLDERS = ("diffq_exp.models.transformers", "diffq_exp.models.from_transformers.transformers")  # ours
BLOCK = 1 << 20


def network_files(source: Path) -> list[Path]:
    """The files that tensors are in. Raises: ValueError naming what is missing, or an index that is none."""
    if source.is_dir():
        source = _inside(source)
    if not source.name.endswith(INDEX):
        return [source]
    parts = [source.parent / name for name in _names(source)]
    if missing := [part for part in parts if not part.is_file()]:
        raise ValueError(f"{source.name} names {missing[0].name!r}, which is not beside it")
    return parts


def pretrained_folder(model: DictConfig) -> Path | None:
    """The folder whose weights a model takes, of transformers or of the user's own; None where it takes none."""
    target = str(model.get("_target_"))
    shipped = target.startswith("diffq_exp.") and target not in OF_FOLDERS
    asked = not shipped and model.get("pretrained") is True
    name = model.get("name") if asked else None
    folder = user_path(name) if isinstance(name, str) else None
    return folder if folder is not None and folder.is_dir() else None


def is_of_a_network(path: Path) -> bool:
    """Whether a file begins as those of safetensors or torch.save do: with a header, as a zip, as a pickle."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" or head.startswith((b"PK", b"\x80"))


def _inside(folder: Path) -> Path:
    for name in IN_A_FOLDER:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"no run, and none of {', '.join(IN_A_FOLDER)} is in it")


def _names(index: Path) -> list[str]:
    """The files that an index names; they lie beside it."""
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        plain = bool(names) and all(Path(name).name == name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index.name} is no index of a network in parts ({type(error).__name__})") from error
    if not plain:
        raise ValueError(f"{index.name} names {names}; they have to lie beside it")
    return names


def content_of(source: Path, *beside: Path) -> str:
    """16 hexadecimal digits for the content of a network's files, and of those `beside` it that are there.

    Raises: as `network_files`; OSError.
    """
    parts = [*network_files(source), *(path for path in beside if path.is_file())]
    hashes = [_hash(part, part.stat().st_mtime_ns, part.stat().st_size) for part in parts]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@lru_cache(256)
def _hash(path: Path, time: int, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]
