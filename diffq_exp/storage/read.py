"""The bytes of a file -> a network in memory, trusting nothing; see layout.py.

Every length is checked against the bytes that are there before anything is allocated after it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from torch import Tensor, nn

from ..quant import Stored, StoredModel, quantizer_of
from ..quant.groups import group_count
from ..quant.pack import unpack_bits, unpack_levels
from ..quant.state import write_into
from ..quant.uniform import GRIDS, SCALES, check_stored
from .layout import DTYPES, FORMAT, checksum

LARGEST_RATIO = 64  # of an index to its compressed bytes; those of real networks shrink to a tenth
LARGEST_TENSOR = 2**40  # entries
KINDS = {"levels": np.uint8, "widths": np.uint8, "scales": np.float32, "floats": np.uint8, "index": np.uint8}


def read(path: Path | str) -> tuple[StoredModel, dict[str, Any]]:
    """A stored network and its configuration, from a file.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: a folder, not a stored model")
    data = Path(path).read_bytes()
    try:
        return deserialize(data)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from fault


def load(path: Path | str, model: nn.Module) -> None:
    """Put a stored network into `model`, or into its quantizer where it has one of the same method.

    Raises: as `read`, and ValueError naming tensors that do not fit; the model is then untouched.
    """
    stored, _ = read(path)
    quantizer = quantizer_of(model)
    try:
        if quantizer is not None:
            quantizer.restore(stored)
        else:
            write_into(model, stored)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from fault


def deserialize(data: bytes) -> tuple[StoredModel, dict[str, Any]]:
    """Undo `serialize`. Raises: ValueError saying what is wrong."""
    plain = _metadata(data)
    if plain.get("format") != FORMAT:
        raise ValueError(f"not a stored model of this package (format {plain.get('format')!r}, not {FORMAT!r})")
    try:
        entries = parse_safetensors(data)
    except (SafetensorError, KeyError) as fault:  # KeyError: a type that numpy lacks
        raise ValueError(f"not a readable safetensors file ({fault})") from fault
    claimed = plain.pop("sha256", None)
    if claimed != checksum(entries, plain):
        raise ValueError("its checksum is wrong: the file is damaged")
    try:
        return _from_entries(entries, plain.get("method", ""))
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError) as fault:
        raise ValueError(f"its index is malformed ({fault!r})") from fault


def _metadata(data: bytes) -> dict[str, str]:
    """The plain metadata of the safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("not a readable safetensors file (it is cut short, or is none)")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__")
        return dict(metadata or {})
    except (ValueError, AttributeError, TypeError, RecursionError) as fault:
        raise ValueError("not a readable safetensors file (its header is no JSON object)") from fault


class _Payload:
    """Takes one payload apart from the front, and sees that nothing is taken twice or left over."""

    def __init__(self, name: str, data: np.ndarray) -> None:
        self.name, self.data, self.at = name, data, 0

    def take(self, count: int, what: str) -> np.ndarray:
        if not 0 <= count <= len(self.data) - self.at:
            left = len(self.data) - self.at
            raise ValueError(f"{what}: {count} of {self.name} are wanted, {left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def finish(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} of {self.name} belong to nothing")


def _from_entries(entries: Mapping[str, np.ndarray], method: str) -> tuple[StoredModel, dict[str, Any]]:
    for name in entries.keys() ^ KINDS.keys():
        raise ValueError(f"it {'lacks the' if name in KINDS else 'has an unknown'} entry {name!r}")
    for name, data in entries.items():
        if data.ndim != 1 or data.dtype != KINDS[name]:
            raise ValueError(f"its entry {name!r} is {data.ndim}-dimensional {data.dtype}, not flat {KINDS[name]}")
    payloads = {name: _Payload(name, data) for name, data in entries.items() if name != "index"}
    index = _index(entries["index"].tobytes())
    names = [row[0] for part in ("tensors", "floats", "buffers") for row in index[part]] + list(index["tied"])
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("its index names a tensor twice, or by something else than text")
    tensors = {row[0]: _tensor(row, payloads) for row in index["tensors"]}
    floats = {name: _float(name, shape, kind, payloads) for name, shape, kind in index["floats"]}
    buffers = {name: _float(name, shape, kind, payloads) for name, shape, kind in index["buffers"]}
    for payload in payloads.values():
        payload.finish()
    for other, name in index["tied"].items():
        if name not in {*tensors, *floats, *buffers}:
            raise ValueError(f"its index ties {other!r} to {name!r}, which is not stored")
    if not isinstance(index["config"], dict):
        raise ValueError("its configuration is no JSON object")
    return StoredModel(method, tensors, floats, buffers, index["tied"]), index["config"]


def _index(data: bytes) -> dict[str, Any]:
    expand = zlib.decompressobj()
    limit = 2**16 + LARGEST_RATIO * len(data)
    try:
        text = expand.decompress(data, limit)
        if expand.unconsumed_tail:
            raise ValueError(f"it expands to more than {limit:,} bytes")
        index = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as fault:
        raise ValueError(f"its index cannot be read ({fault})") from fault
    if not isinstance(index, dict):
        raise ValueError("its index is no JSON object")
    return index


def _entries(name: str, shape: Any) -> int:
    """Entries of a shape, of which nothing is believed."""
    entries = 1
    for size in shape:
        if type(size) is not int or not 0 <= size <= LARGEST_TENSOR:
            raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
        entries *= max(size, 1)
    if entries > LARGEST_TENSOR:
        raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
    return 0 if 0 in shape else entries


def _tensor(row: list[Any], payloads: Mapping[str, _Payload]) -> Stored:
    name, shape, kind, grid, group_size, top, level_bytes, width_bytes = row
    what = f"tensor {name!r}"
    entries = _entries(name, shape)
    levels = payloads["levels"].take(level_bytes, what)
    widths = payloads["widths"].take(width_bytes, what)
    if grid not in GRIDS or kind not in DTYPES:
        raise ValueError(f"{what}: unknown grid {grid!r} or type {kind!r}")
    if not 0 < entries <= 8 * len(levels):
        raise ValueError(f"{what}: {entries} entries in {len(levels)} bytes of levels")
    if not (
        type(group_size) is int and group_size >= 0 and (top is None or (type(top) is int and 0 < top < 2**15))
    ):
        raise ValueError(f"{what}: group size {group_size} or top level {top} is impossible")
    try:
        bits = unpack_bits(widths, group_count(entries, group_size))
        if bits.min() < 1:
            raise ValueError("a group of 0 bits")
        numbers = unpack_levels(levels, bits, group_size, entries)
    except ValueError as fault:
        raise ValueError(f"{what}: {fault}") from fault
    scales = torch.from_numpy(payloads["scales"].take(SCALES[grid], what).copy())
    stored = Stored(
        grid,
        tuple(shape),
        DTYPES[kind],
        group_size,
        torch.from_numpy(numbers),
        torch.from_numpy(bits),
        scales,
        top,
    )
    check_stored(name, stored)
    return stored


def _float(name: str, shape: Any, kind: str, payloads: Mapping[str, _Payload]) -> Tensor:
    if kind not in DTYPES:
        raise ValueError(f"tensor {name!r}: unknown type {kind!r}")
    entries = _entries(name, shape)
    raw = payloads["floats"].take(entries * DTYPES[kind].itemsize, f"tensor {name!r}")
    if entries == 0:
        return torch.empty(shape, dtype=DTYPES[kind])
    return torch.from_numpy(raw.copy()).view(DTYPES[kind]).reshape(shape)
