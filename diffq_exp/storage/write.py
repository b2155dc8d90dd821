"""A network in memory -> the bytes of its file; see layout.py."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as dump_safetensors
from torch import Tensor, nn

from ..quant import Quantizer, Stored, StoredModel, quantizer_of
from ..quant.pack import pack_bits, pack_levels
from ..quant.select import select
from ..quant.state import describe
from ..quant.uniform import check_stored
from ..results.records import replacing
from .layout import DTYPES, FORMAT, checksum


def stored_model_of(source: Quantizer | nn.Module | StoredModel) -> StoredModel:
    """The stored network of a quantizer, of the model it is attached to, or of a model without one."""
    if isinstance(source, nn.Module):
        quantizer = quantizer_of(source)
        if quantizer is None:
            return describe(source, select(source, 0, ["*"], detect_bound=True), {}, "none")
        source = quantizer
    return source.stored_model() if isinstance(source, Quantizer) else source


def serialize(source: Quantizer | nn.Module | StoredModel, config: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of the file; `config` is kept as JSON. Raises: ValueError when quantized weights are not finite."""
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
    return _ordered(dump_safetensors(entries, {**plain, "sha256": checksum(entries, plain)}))


def _ordered(data: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in random order, and equal networks shall
    give equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    return data[:8] + text.ljust(end - 8) + data[end:]


def check_storable(source: Quantizer | nn.Module | StoredModel) -> None:
    """See that a network can be stored, whatever its weights become. Raises: ValueError naming what cannot be."""
    stored = stored_model_of(source)
    for tensor in (*stored.floats.values(), *stored.buffers.values()):
        _kind(tensor)


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


def save(
    source: Quantizer | nn.Module | StoredModel, path: Path | str, config: Mapping[str, Any] | None = None
) -> int:
    """Write a stored network; -> bytes of the file. A failure leaves an older file whole.

    Raises: ValueError when quantized weights are not finite, OSError from the disk.
    """
    data = serialize(source, config)
    with replacing(Path(path)) as file:
        file.write(data)
    return len(data)
