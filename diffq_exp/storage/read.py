"""A file -> a network in memory, trusting nothing; see layout.py.

Where it is known what network the file is for, names and shapes are compared before anything is decoded. All of it
is decoded before the network is written to, the levels of a weight in a byte up to 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..stored.network import StoredModel, check_fit, owner_of, write_into
from .layout import check_format, checksum, most_entries
from .parse import Contents, contents_of, payloads_of


@dataclass(frozen=True)
class StoredFile:
    """A file whose header, checksum and index were found right. header, index: bytes of the file that they take."""

    method: str
    contents: Contents
    header: int
    index: int

    def check_fit(self, model: nn.Module) -> None:
        """Raises: ValueError naming tensors that only one of the file and the network has, or of another shape."""
        owner = owner_of(model)
        learned = owner.learned() if owner is not None else {}
        targets = {name: value for name, value in model.state_dict().items() if name not in learned}
        check_fit(targets, self.contents.shapes())

    def decode(self) -> StoredModel:
        """Decode the tensors, once: the coded ones are given up on the way, which keeps the memory low.

        Raises: ValueError naming the first tensor whose bytes are not those of such a tensor.
        """
        coded = self.contents.tensors
        tensors = {name: coded.pop(name).decode() for name in list(coded)}
        return StoredModel(self.method, tensors, self.contents.floats, self.contents.buffers, self.contents.tied)


def read(path: Path | str) -> tuple[StoredModel, dict[str, Any]]:
    """A stored network and its configuration, from a file.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    file = open_stored(path)
    with _named(path):
        return file.decode(), file.contents.config


def load(path: Path | str, model: nn.Module) -> None:
    """Put a stored network into `model`, or into its quantizer where it has one of the same method.

    Raises: as `read`, and ValueError naming tensors that do not fit; the model is then untouched.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a network is loaded into an nn.Module, not into a {type(model).__name__}")
    file = open_stored(path, check_claims=False)
    with _named(path):
        file.check_fit(model)
        stored, owner = file.decode(), owner_of(model)
        if owner is not None:
            owner.restore(stored)
        else:
            write_into(model, stored)


@contextmanager
def _named(path: Path | str) -> Iterator[None]:
    """Begin the message of a ValueError with the path, and keep it to one line, whatever the file says."""
    try:
        yield
    except ValueError as fault:
        raise ValueError(f"{path}: {' '.join(str(fault).split())}") from fault


def open_stored(path: Path | str, check_claims: bool = True) -> StoredFile:
    """Read a file and check all of it but what decoding finds. check_claims: refuse more entries than the file's
    size makes likely; False where the caller compares them with a network before decoding.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: a folder, not a stored model")
    with _named(path):
        with open(path, "rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(0)
            length = int.from_bytes(opened.read(8), "little")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                check_format(metadata.get("format"))
                payloads = payloads_of(file)
        except (SafetensorError, OSError, KeyError, TypeError) as fault:  # the last two: a type that numpy lacks
            raise ValueError(f"not a readable safetensors file ({fault})") from fault
        if metadata.pop("checksum", None) != checksum({name: [data] for name, data in payloads.items()}, metadata):
            raise ValueError("its checksum is wrong: the file is damaged")
        contents = contents_of(payloads)
        entries, most = sum(torch.Size(one.shape).numel() for one in contents.tensors.values()), most_entries(size)
        if check_claims and entries > most:
            raise ValueError(f"{entries:,} entries in {size:,} bytes: more than {most:,} are not believed")
        return StoredFile(metadata.get("method", ""), contents, 8 + length, len(payloads["index"]))
