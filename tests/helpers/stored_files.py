"""Stored files taken apart and put together again, so that they lie under a right checksum; of both formats."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors

from diffq_exp.storage.dictionary import DICTIONARY

PAYLOADS = ("scales", "levels", "bits", "models", "floats")
OLD, NEW = "diffq_exp.model/2", "diffq_exp.model/3"
SAME = {  # tensors that stand in the index as a value
    "floats": torch.full((2, 3), 0.1),
    "zeros": torch.zeros(4),
    "negative zeros": torch.full((2,), -0.0),
    "smallest": torch.full((2,), 1e-45),
    "largest": torch.full((2,), torch.finfo(torch.float32).max),
    "double": torch.full((2,), 1 / 3, dtype=torch.float64),
    "double, smallest": torch.full((2,), 5e-324, dtype=torch.float64),
    "half": torch.full((3,), 0.1, dtype=torch.float16),
    "bfloat16": torch.full((3, 1), -0.1, dtype=torch.bfloat16),
    "expanded": torch.tensor(0.7).expand(3, 2),
    "transposed": torch.full((2, 3), 0.3).t(),
    "counter": torch.tensor(17),
    "long": torch.full((2,), -(2**63)),
    "int32": torch.full((1,), 2**31 - 1, dtype=torch.int32),
    "int16": torch.full((2, 2), -1, dtype=torch.int16),
    "int8": torch.full((2,), -128, dtype=torch.int8),
    "bytes": torch.full((2,), 255, dtype=torch.uint8),
    "true": torch.ones(3, dtype=torch.bool),
    "false": torch.tensor(False),
}


@dataclass
class Parts:
    """The content of a stored file, to be changed: payloads by name, the index, the metadata of the header.

    index_bytes: in place of the deflated `index`. padding: zeros at the end of `data`, or of the index of format 2.
    lengths: in place of the right ones, of the index and the payloads; bytes: of all six. after: bytes at the end.
    """

    entries: dict[str, np.ndarray]
    index: Any
    plain: dict[str, str]
    padding: int = 0
    index_bytes: bytes | None = None
    lengths: list[int] | bytes | None = None
    after: bytes = b""


def parts_of(data: bytes) -> Parts:
    """The content of a good file of either format."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    plain = {key: value for key, value in sorted(header["__metadata__"].items()) if key != "checksum"}
    entries = parse_safetensors(data)
    if plain["format"] == OLD:
        expand = zlib.decompressobj()
        index = json.loads(expand.decompress(entries.pop("index").tobytes()))
        return Parts({name: entries[name] for name in PAYLOADS}, index, plain, len(expand.unused_data))
    content = entries["data"].tobytes()
    at, lengths = 8, []
    for _ in range(6):
        length, at = _number(content, at)
        lengths.append(length)
    pieces = []
    for length in lengths:
        pieces.append(content[at : at + length])
        at += length
    payloads = {name: np.frombuffer(piece, np.uint8) for name, piece in zip(PAYLOADS, pieces[1:], strict=True)}
    payloads["scales"] = payloads["scales"].view(np.float32)
    return Parts(payloads, json.loads(inflated(pieces[0])), plain, len(content) - at)


def _number(data: bytes, at: int) -> tuple[int, int]:
    number = place = 0
    while data[at] >= 128:
        number, at, place = number | (data[at] & 127) << place, at + 1, place + 7
    return number | data[at] << place, at + 1


def varint(number: int) -> bytes:
    """Seven bits to a byte, the lowest first."""
    return bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])


def inflated(data: bytes) -> bytes:
    """The text of an index of format 3."""
    return zlib.decompressobj(-15, DICTIONARY).decompress(data)


def deflated(text: bytes, level: int = 9) -> bytes:
    """The bytes of an index of format 3."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return squeeze.compress(text) + squeeze.flush()


def put_together(parts: Parts) -> bytes:
    """The file with a checksum that is right, so that the checks behind it are reached."""
    text, entries = json.dumps(parts.index, separators=(",", ":")).encode(), parts.entries
    zeros = bytes(parts.padding) + parts.after
    if parts.plain["format"] == OLD:
        index = zlib.compress(text) if parts.index_bytes is None else parts.index_bytes
        entries = {"index": np.frombuffer(index + zeros, np.uint8), **entries}
        return dump_safetensors(entries, {**parts.plain, "checksum": checksum(entries, parts.plain)})
    pieces = [deflated(text) if parts.index_bytes is None else parts.index_bytes]
    pieces += [entries[name].tobytes() for name in PAYLOADS]
    front = list(map(len, pieces)) if parts.lengths is None else parts.lengths
    if not isinstance(front, bytes):
        front = b"".join(map(varint, front))
    return file_of(front + b"".join(pieces) + zeros, parts.plain)


def file_of(content: bytes, plain: dict[str, str] | None = None) -> bytes:
    """The file of format 3 whose entry `data` is this content behind its checksum."""
    data = blake2b(content, digest_size=8).digest() + content
    return dump_safetensors({"data": np.frombuffer(data, np.uint8)}, {"format": NEW} if plain is None else plain)


def checksum(entries: dict[str, np.ndarray], plain: dict[str, str]) -> str:
    """Of format 2: BLAKE2b over the plain metadata and, in the order of their names, the entries."""
    content = json.dumps(plain, sort_keys=True).encode()
    content += b"".join(name.encode() + entries[name].tobytes() for name in sorted(entries))
    return blake2b(content, digest_size=16).hexdigest()


def changed(data: bytes, change: Callable[[Parts], object]) -> bytes:
    """A file with a change in its parts, and a right checksum."""
    parts = parts_of(data)
    change(parts)
    return put_together(parts)


def as_version2(data: bytes) -> bytes:
    """The same network as a file of format 2, in which no tensor is constant."""
    parts = parts_of(data)
    raw, floats = parts.entries["floats"].tobytes(), b""
    for row in parts.index["floats"] + parts.index["buffers"]:
        kind = {"bool": "u1", "bfloat16": "u2"}.get(row[2], row[2])
        size = int(np.prod(row[1], dtype=int)) * np.dtype(kind).itemsize
        if len(row) == 4:
            assert row[2] != "bfloat16"
            floats += np.full(row[1], row.pop(), kind).tobytes()
        else:
            floats, raw = floats + raw[:size], raw[size:]
    parts.entries["floats"] = np.frombuffer(floats, np.uint8)
    parts.plain = {"format": OLD, "method": parts.index.pop("method")}
    return put_together(parts)
