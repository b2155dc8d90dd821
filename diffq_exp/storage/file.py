"""The file of a stored network: a safetensors file of few entries, one payload per kind, in the order of the index.

    levels   uint8   bit-packed levels of all quantized tensors, each padded to whole bytes
    widths   uint8   bit-packed tables of bits
    scales   float32 range or step of each quantized tensor
    floats   uint8   raw bytes of what is not quantized: parameters, then buffers
    index    uint8   zlib-compressed JSON: names, shapes, group sizes, lengths; and the configuration

The header's metadata has format, method and the checksum of all of it in plain text. A header entry costs about
85 bytes, which is why tensors do not have one each. Reading checks every length against the bytes that are there
before it allocates anything after them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors
from torch import Tensor, nn

from ..quant import Quantizer, Stored, StoredModel, quantizer_of
from ..quant.groups import group_count
from ..quant.pack import pack_bits, pack_levels, unpack_bits, unpack_levels
from ..quant.select import select
from ..quant.state import describe, write_into
from ..quant.uniform import GRIDS, SCALES, check_stored
from ..results.records import replacing

FORMAT = "diffq_exp.model/1"
LARGEST_INDEX = 64 * 2**20  # bytes of JSON; ours have about 100 per tensor
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip


def stored_model_of(source: Quantizer | nn.Module | StoredModel) -> StoredModel:
    """The stored network of a quantizer, of the model it is attached to, or of a model without one."""
    if isinstance(source, nn.Module):
        quantizer = quantizer_of(source)
        if quantizer is None:
            return describe(source, select(source, 0, ["*"], detect_bound=True), {}, "none")
        source = quantizer
    return source.stored_model() if isinstance(source, Quantizer) else source


# ---- writing ------------------------------------------------------------------------------------------------


def serialize(source: Quantizer | nn.Module | StoredModel, config: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of the file; `config` is kept as JSON. Raises: ValueError when weights are not finite."""
    stored = stored_model_of(source)
    levels, widths, scales, rows = [], [], [], []
    for name, tensor in stored.tensors.items():
        cpu = tensor.to("cpu")
        check_stored(name, cpu)
        bits = cpu.bits.numpy()
        levels.append(pack_levels(cpu.levels.numpy(), bits, cpu.group_size))
        widths.append(pack_bits(bits))
        scales.append(cpu.scales.numpy())
        rows.append(_tensor_row(name, cpu, len(levels[-1]), len(widths[-1])))
    index = {
        "tensors": rows,
        "floats": [[name, *_kind(tensor)] for name, tensor in stored.floats.items()],
        "buffers": [[name, *_kind(tensor)] for name, tensor in stored.buffers.items()],
        "tied": stored.tied,
        "config": dict(config or {}),
    }
    floats = [_raw(tensor) for tensor in (*stored.floats.values(), *stored.buffers.values())]
    text = json.dumps(index, separators=(",", ":")).encode()
    entries = {
        "levels": _joined(levels, np.uint8),
        "widths": _joined(widths, np.uint8),
        "scales": _joined(scales, np.float32),
        "floats": _joined(floats, np.uint8),
        "index": np.frombuffer(zlib.compress(text, 9), np.uint8),
    }
    plain = {"format": FORMAT, "method": stored.method}
    return dump_safetensors(entries, {**plain, "sha256": _checksum(entries, plain)})


def _tensor_row(name: str, tensor: Stored, levels: int, widths: int) -> list[Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return [name, list(tensor.shape), dtype, tensor.grid, tensor.group_size, tensor.top, levels, widths]


def _kind(tensor: Tensor) -> tuple[list[int], str]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"tensors of type {dtype} cannot be stored; possible are {', '.join(DTYPES)}")
    return list(tensor.shape), dtype


def _raw(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy()


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate([*parts, np.empty(0, dtype)])


def _checksum(entries: Mapping[str, np.ndarray], plain: Mapping[str, str]) -> str:
    """SHA-256 over the plain metadata and, in the order of their names, the entries."""
    digest = sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(entries):
        digest.update(name.encode() + entries[name].tobytes())
    return digest.hexdigest()


def save(
    source: Quantizer | nn.Module | StoredModel, path: Path | str, config: Mapping[str, Any] | None = None
) -> int:
    """Write a stored network; -> bytes of the file. A failure leaves an older file whole.

    Raises: ValueError when weights are not finite, OSError from the disk.
    """
    data = serialize(source, config)
    with replacing(Path(path)) as file:
        file.write(data)
    return len(data)


# ---- reading ------------------------------------------------------------------------------------------------


def read(path: Path | str) -> tuple[StoredModel, dict[str, Any]]:
    """A stored network and its configuration, from a file.

    Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
    """
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
    except SafetensorError as fault:
        raise ValueError(f"not a readable safetensors file ({fault})") from fault
    checksum = plain.pop("sha256", None)
    if checksum != _checksum(entries, plain):
        raise ValueError("its checksum is wrong: the file is damaged")
    try:
        return _from_entries(entries, plain.get("method", ""))
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as fault:
        raise ValueError(f"its index is malformed ({fault!r})") from fault


def _metadata(data: bytes) -> dict[str, str]:
    """The plain metadata of the safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("not a readable safetensors file (it is cut short, or is none)")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__")
        return dict(metadata or {})
    except (ValueError, AttributeError, TypeError) as fault:
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
    payloads = {name: _Payload(name, entries[name]) for name in ("levels", "widths", "scales", "floats")}
    index = _index(entries["index"].tobytes())
    tensors = {row[0]: _tensor(row, payloads) for row in index["tensors"]}
    floats = {name: _float(name, shape, kind, payloads) for name, shape, kind in index["floats"]}
    buffers = {name: _float(name, shape, kind, payloads) for name, shape, kind in index["buffers"]}
    for payload in payloads.values():
        payload.finish()
    tied = dict(index["tied"])
    names = [*tensors, *floats, *buffers]
    if len(set(names)) < len(index["tensors"]) + len(index["floats"]) + len(index["buffers"]):
        raise ValueError("its index names a tensor twice")
    for other, name in tied.items():
        if name not in names or other in names:
            raise ValueError(f"its index ties {other!r} to {name!r}, which is not stored")
    return StoredModel(method, tensors, floats, buffers, tied), index["config"]


def _index(data: bytes) -> dict[str, Any]:
    expand = zlib.decompressobj()
    try:
        text = expand.decompress(data, LARGEST_INDEX)
        index = json.loads(text)
    except (zlib.error, ValueError, RecursionError) as fault:
        raise ValueError(f"its index cannot be read ({fault})") from fault
    if not isinstance(index, dict):
        raise ValueError("its index is no JSON object")
    return index


def _entries(name: str, shape: Any) -> int:
    if not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
        raise ValueError(f"tensor {name!r}: its shape {shape} is impossible")
    entries = 1
    for size in shape:
        entries *= size
    return entries


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
    if not (isinstance(group_size, int) and group_size >= 0 and (top is None or 0 < top < 2**15)):
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
    size = _entries(name, shape) * DTYPES[kind].itemsize
    raw = payloads["floats"].take(size, f"tensor {name!r}")
    return torch.from_numpy(raw.copy()).view(DTYPES[kind]).reshape(shape)
