"""The bytes of a file -> its index and its payloads.

Every length is checked against the bytes of the file before memory is allocated for it.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..stored.packing import Bytes
from .dictionary import DICTIONARY
from .layout import (
    CHECKSUM_BYTES,
    FREE_TEXT,
    FREE_VALUES,
    PAYLOADS,
    TEXT_PER_BYTE,
    checksum,
    read_number,
    values_in,
)


class Slice(Protocol):
    """An entry of a safetensors file, before it is read."""

    def get_shape(self) -> list[int]: ...
    def get_dtype(self) -> str: ...


class OpenFile(Protocol):
    """A safetensors file, as `safe_open` opens it for numpy."""

    def keys(self) -> list[str]: ...
    def get_slice(self, name: str) -> Slice: ...
    def get_tensor(self, name: str) -> Bytes: ...


@dataclass(frozen=True)
class Sections:
    """The index of a file, its payloads by name, and the number of zeros after them."""

    index: dict[str, object]
    payloads: dict[str, Bytes]
    padding: int


class Payload:
    """Hands out a payload from its beginning, so that no byte is used twice or left over."""

    def __init__(self, name: str, data: Bytes) -> None:
        self.name, self.data, self.at = name, data, 0

    def take(self, count: int, user: str) -> Bytes:
        if not 0 <= count <= len(self.data) - self.at:
            left = len(self.data) - self.at
            raise ValueError(f"{user}: {count} bytes of {self.name} are wanted, {left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def finish(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes of {self.name} are left over")


def sections_of(data: Bytes) -> Sections:
    """The entry `data` of a file. Raises: ValueError when its checksum or a length in it is wrong."""
    if data[:CHECKSUM_BYTES].tobytes() != checksum([data[CHECKSUM_BYTES:]]):
        raise ValueError("its checksum is wrong: the file is damaged")
    at, lengths = CHECKSUM_BYTES, []
    for _ in range(1 + len(PAYLOADS)):
        length, at = read_number(data, at)
        lengths.append(length)
    rest = Payload("data", data[at:])
    index = rest.take(lengths[0], "the index")
    payloads = {name: rest.take(length, name) for name, length in zip(PAYLOADS, lengths[1:], strict=True)}
    padding = rest.data[rest.at :]
    if padding.any():
        raise ValueError("its payloads are followed by bytes that are not zero")
    text, after = index_text(index, zlib.decompressobj(-zlib.MAX_WBITS, DICTIONARY), len(data))
    if after:
        raise ValueError("its index is followed by something else")
    return Sections(index_of(text), payloads, len(padding))


def index_text(data: Bytes, expand: zlib._Decompress, file_bytes: int) -> tuple[bytes, bytes]:
    """The text of an index, and what follows it. Raises: ValueError naming why it cannot be read."""
    limit, most = FREE_TEXT + TEXT_PER_BYTE * file_bytes, FREE_VALUES + file_bytes
    try:
        text = expand.decompress(data.tobytes(), limit)
    except zlib.error as error:
        raise ValueError(f"its index cannot be read ({error})") from error
    if expand.unconsumed_tail:
        raise ValueError(f"its index cannot be read (it expands to more than {limit:,} bytes)")
    if not expand.eof:
        raise ValueError("its index cannot be read (it ends too early)")
    if values_in(text) > most:  # a value takes far more memory than its text
        raise ValueError(f"its index cannot be read (more than {most:,} values, too many for the size of the file)")
    return text, expand.unused_data


def index_of(text: bytes) -> dict[str, object]:
    """Raises: ValueError for a text that is no JSON object."""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its index cannot be read ({error})") from error
    if not isinstance(index, dict):
        raise ValueError("its index is no JSON object")
    return index


def entry_of(file: OpenFile, name: str, kind: str) -> Bytes:
    """The bytes of a flat entry. Raises: ValueError when it is of another type or shape."""
    entry = file.get_slice(name)
    if len(entry.get_shape()) != 1 or entry.get_dtype() != kind:
        given = f"{len(entry.get_shape())}-dimensional {entry.get_dtype()}"
        raise ValueError(f"its entry {name!r} is {given}, not flat {kind}")
    return file.get_tensor(name).view(np.uint8)
