"""The index and the payloads of a file -> the description and the bytes of each tensor, not decoded yet.

The index may say anything. Every length is checked against the payloads before memory is allocated for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..stored.grids import GRIDS, SCALES, Stored, check_stored
from ..stored.packing import Bytes
from .coding import Coded, decode_tensor
from .layout import ANS, CONTEXT, DTYPES, PACKED, PER_CHANNEL
from .sections import Payload, Sections

LARGEST_TENSOR = 2**40  # entries


@dataclass(frozen=True)
class CodedTensor:
    """The description of a quantized tensor in a file, and its bytes, not decoded yet."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    grid: str
    group_size: int
    top: int | None
    coded: Coded
    scales: Bytes

    def decode(self) -> Stored:
        """Raises: ValueError naming the tensor and the problem."""
        try:
            levels, bits = decode_tensor(self.coded, self.shape, self.group_size, self.top)
        except ValueError as error:
            raise ValueError(f"tensor {self.name!r}: {error}") from error
        scales = torch.from_numpy(self.scales.view(np.float32))
        numbers = torch.from_numpy(levels), torch.from_numpy(bits)
        stored = Stored(self.grid, self.shape, self.dtype, self.group_size, *numbers, scales, self.top)
        check_stored(self.name, stored)
        return stored


@dataclass(frozen=True)
class Contents:
    """What the index lists: quantized tensors, other parameters, buffers, ties, and the configuration."""

    method: str
    tensors: dict[str, CodedTensor]
    floats: dict[str, Tensor]
    buffers: dict[str, Tensor]
    tied: dict[str, str]
    config: dict[str, object]
    constant: frozenset[str]  # names of floats and buffers that the file has as one value

    def entries(self) -> int:
        """Entries that may take more memory than the file: of quantized tensors, and of constant ones."""
        plain = self.floats | self.buffers
        constant = sum(plain[name].numel() for name in self.constant)
        return constant + sum(torch.Size(tensor.shape).numel() for tensor in self.tensors.values())

    def tied_entries(self) -> int:
        """Entries of tensors under the names that they are not stored under."""
        shapes = self.shapes()
        return sum(torch.Size(shapes[name]).numel() for name in self.tied)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by every name it has."""
        quantized = {name: tensor.shape for name, tensor in self.tensors.items()}
        shapes = quantized | {name: tuple(value.shape) for name, value in (self.floats | self.buffers).items()}
        return shapes | {other: shapes[name] for other, name in self.tied.items()}


def contents_of(sections: Sections) -> Contents:
    """Divide the payloads as the index says. Raises: ValueError naming what is impossible in it."""
    try:
        return _contents(sections.index, sections.payloads)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"its index is malformed ({error!r})") from error


def _contents(index: dict[str, Any], data: Mapping[str, Bytes]) -> Contents:
    payloads = {name: Payload(name, part) for name, part in data.items()}
    names = [row[0] for part in ("tensors", "floats", "buffers") for row in index[part]] + list(index["tied"])
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("its index names a tensor twice, or by a value that is no text")
    tensors = {row[0]: _tensor(row, payloads) for row in index["tensors"]}
    floats = {row[0]: _plain(payloads["floats"], *row) for row in index["floats"]}
    buffers = {row[0]: _plain(payloads["floats"], *row) for row in index["buffers"]}
    for payload in payloads.values():
        payload.finish()
    for other, name in index["tied"].items():
        if name not in {*tensors, *floats, *buffers}:
            raise ValueError(f"its index ties {other!r} to {name!r}, which is not stored")
    if not isinstance(index["config"], dict) or not isinstance(index["method"], str):
        raise ValueError("its configuration is no JSON object, or its method no text")
    constant = frozenset(row[0] for row in (*index["floats"], *index["buffers"]) if len(row) == 4)
    return Contents(index["method"], tensors, floats, buffers, index["tied"], index["config"], constant)


def _entries(name: str, shape: object) -> int:
    """Entries of a shape, which may be anything that JSON can hold."""
    entries = 1
    if not isinstance(shape, list):
        raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
    for size in shape:
        if type(size) is not int or not 0 <= size <= LARGEST_TENSOR:
            raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
        entries *= max(size, 1)
    if entries > LARGEST_TENSOR:
        raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
    return 0 if 0 in shape else entries


def _tensor(row: Sequence[Any], payloads: Mapping[str, Payload]) -> CodedTensor:
    name, shape, kind, grid, group_size, top, levels_coding, bits_coding, levels, bits, models = row
    title, per_channel = f"tensor {name!r}", str(grid).endswith(PER_CHANNEL)
    grid = str(grid).removesuffix(PER_CHANNEL)
    if grid not in GRIDS or kind not in DTYPES:
        raise ValueError(f"{title}: unknown grid {grid!r} or type {kind!r}")
    if levels_coding not in (PACKED, ANS, CONTEXT) or bits_coding not in (PACKED, ANS):
        raise ValueError(f"{title}: unknown coding {levels_coding!r} or {bits_coding!r}")
    if _entries(name, shape) == 0:
        raise ValueError(f"{title}: quantized, but without entries")
    if not (
        type(group_size) is int
        and 0 <= group_size <= LARGEST_TENSOR
        and (top is None or (type(top) is int and 0 < top < 2**15))
    ):
        raise ValueError(f"{title}: group size {group_size} or top level {top} is impossible")
    if per_channel and (not shape or shape[0] < 2 or group_size):
        raise ValueError(f"{title}: of shape {shape} in groups of {group_size}, with a scale for each channel")
    scales_bytes = 4 * SCALES[grid] * (shape[0] if per_channel else 1)
    sizes = {"levels": levels, "bits": bits, "models": models, "scales": scales_bytes}
    taken = {kind: payloads[kind].take(count, title).copy() for kind, count in sizes.items()}
    scales = taken.pop("scales")
    coded = Coded(**taken, coding=(levels_coding, bits_coding))
    return CodedTensor(name, tuple(shape), DTYPES[kind], grid, group_size, top, coded, scales)


def _plain(payload: Payload, name: str, shape: Any, kind: str, *value: Any) -> Tensor:
    """A tensor that is not quantized; with a value, one whose entries all have it, in the memory of one entry."""
    if kind not in DTYPES:
        raise ValueError(f"tensor {name!r}: unknown type {kind!r}")
    entries = _entries(name, shape)
    if value:
        return _constant(name, DTYPES[kind], *value).expand(shape)
    raw = payload.take(entries * DTYPES[kind].itemsize, f"tensor {name!r}")
    if entries == 0:
        return torch.empty(shape, dtype=DTYPES[kind])
    return torch.from_numpy(raw.copy()).view(DTYPES[kind]).reshape(shape)


def _constant(name: str, dtype: torch.dtype, value: object) -> Tensor:
    """A scalar of exactly this value. Raises: ValueError when the type does not hold it."""
    if type(value) is (bool if dtype == torch.bool else float if dtype.is_floating_point else int):
        with suppress(RuntimeError, OverflowError, ValueError):
            scalar = torch.tensor(value, dtype=dtype)
            if math.isfinite(value) and scalar.item() == value:
                return scalar
    raise ValueError(f"tensor {name!r}: {str(value)[:30]} is no value of {dtype}")
