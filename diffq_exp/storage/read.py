"""A file -> a network in memory; see layout.py. A file may be damaged or hostile, so that all it says is checked.

Where the network is known, names and shapes are compared before any tensor is decoded. All tensors are decoded
before the network changes; a level of up to 8 bits then takes a byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..common.printable import one_line
from ..stored.network import StoredModel, check_fit, owner_of, write_into
from . import version2
from .layout import NAMES, NEWEST, most_entries, version_of
from .parse import Contents, contents_of
from .sections import Sections, entry_of, sections_of


@dataclass(frozen=True)
class StoredFile:
    """A file with a valid header, checksum and index. metadata, padding: bytes of the file beside its payloads."""

    contents: Contents
    metadata: int
    padding: int

    def check_fit(self, model: nn.Module) -> None:
        """Raises: ValueError naming tensors that only the file or only the network has, or whose shapes differ."""
        owner = owner_of(model)
        learned = owner.learned() if owner is not None else {}
        targets = {name: value for name, value in model.state_dict().items() if name not in learned}
        check_fit(targets, self.contents.shapes())

    def decode(self) -> StoredModel:
        """Decode the tensors, once: each coded tensor is released when it is decoded, which keeps the memory low.

        Raises: ValueError naming the first tensor whose bytes are not those of such a tensor.
        """
        coded = self.contents.tensors
        tensors = {name: coded.pop(name).decode() for name in list(coded)}
        floats, buffers = (
            {name: self._spread(name, value) for name, value in part.items()}
            for part in (self.contents.floats, self.contents.buffers)
        )
        return StoredModel(self.contents.method, tensors, floats, buffers, self.contents.tied)

    def _spread(self, name: str, value: Tensor) -> Tensor:
        """A plain tensor in memory of its own, in which a constant one has each entry."""
        return value.clone(memory_format=torch.contiguous_format) if name in self.contents.constant else value


def read(path: Path | str) -> tuple[StoredModel, dict[str, Any]]:
    """A stored network and its configuration, from a file.

    Raises: FileNotFoundError; ValueError naming the file and the problem.
    """
    file = open_stored(path)
    with named(path):
        return file.decode(), file.contents.config


def load(path: Path | str, model: nn.Module) -> None:
    """Put a stored network into `model`, or into its quantizer if that has the same method.

    Raises: as `read`, and ValueError naming tensors that do not fit; the model is then untouched.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a network is loaded into an nn.Module, not into a {type(model).__name__}")
    file = open_stored(path, check_claims=False)
    with named(path):
        file.check_fit(model)
        stored, owner = file.decode(), owner_of(model)
        if owner is not None:
            owner.restore(stored)
        else:
            write_into(model, stored)


@contextmanager
def named(path: Path | str) -> Iterator[None]:
    """Begin the message of a ValueError with the path, and keep it to one line."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def open_stored(path: Path | str, check_claims: bool = True) -> StoredFile:
    """Read a file and check everything that can be checked without decoding. check_claims: refuse more entries than
    is plausible for the file's size; False where the caller compares them with a network before decoding.

    Raises: FileNotFoundError; ValueError naming the file and the problem.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: a folder, not a stored model")
    with named(path):
        size = Path(path).stat().st_size
        sections = _sections(path)
        contents = contents_of(sections)
        if check_claims:
            _check_claims(contents, size)
        payloads = sum(map(len, sections.payloads.values()))
        return StoredFile(contents, size - payloads - sections.padding, sections.padding)


def _check_claims(contents: Contents, file_bytes: int) -> None:
    """Raises: ValueError for more entries than a file of this size plausibly has."""
    most = most_entries(file_bytes)
    for entries, allowed, kind in (
        (contents.entries(), most, "entries"), (contents.tied_entries(), NAMES * most, "entries of tied tensors"),
    ):  # fmt: skip
        if entries > allowed:
            raise ValueError(f"{entries:,} {kind} in {file_bytes:,} bytes: more than {allowed:,} are not plausible")


def _sections(path: Path | str) -> Sections:
    """Raises: FileNotFoundError; ValueError for a file of another kind, version or checksum."""
    with open(path, "rb"):
        pass  # FileNotFoundError and the like, as they are
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            if version_of(metadata.get("format")) < NEWEST:
                return version2.sections_of(file, metadata)
            if file.keys() != ["data"]:
                raise ValueError(f"it has {len(file.keys())} entries; format {NEWEST} has one, 'data'")
            return sections_of(entry_of(file, "data", "U8"))
    except (SafetensorError, OSError, KeyError, TypeError) as error:  # the last two: a type that numpy lacks
        raise ValueError(f"not a readable safetensors file ({error})") from error
