"""A network in memory -> its file; see layout.py.

Tensors are stored one at a time and their bytes written part by part, so that writing takes little more memory than
the largest tensor and the file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..common.files import replacing
from ..stored.grids import Stored, check_stored
from ..stored.network import StoredModel, StoresModel, describe, owner_of
from ..stored.packing import Bytes
from ..stored.selection import select
from .coding import Coded, encode_tensor
from .layout import CODINGS, DTYPES, FLOATS, KINDS, checksum, fewest_bytes, format_of, header

Source = StoresModel | nn.Module | StoredModel


def stored_model_of(source: Source, float: str = "float32", at_once: bool = True) -> StoredModel:
    """The stored network of a quantizer, of the model it is attached to, or of a model without one.

    float: "float16" rounds parameters and buffers that are not quantized to float16 where they stay finite;
    "float32" leaves them as they are. at_once: see StoresModel.stored_model.
    Raises: ValueError for another `float`.
    """
    if float not in FLOATS:
        raise ValueError(f"float={float!r}: allowed are {', '.join(FLOATS)}")
    if isinstance(source, nn.Module):
        owner = owner_of(source)
        if owner is None:
            stored = describe(source, select(source, 0, ["*"], detect_bound=True), {}, "none")
        else:
            stored = owner.stored_model(at_once)
    elif isinstance(source, StoresModel):
        stored = source.stored_model(at_once)
    elif isinstance(source, StoredModel):
        stored = source
    else:
        raise TypeError(f"a quantizer, an nn.Module or a StoredModel can be stored, not a {type(source).__name__}")
    if float == "float32":
        return stored
    return replace(stored, floats=_halved(stored.floats), buffers=_halved(stored.buffers))


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return {
        name: half if torch.equal(half.isfinite(), tensors[name].isfinite()) else tensors[name]
        for name, half in halves.items()
    }


def save(
    source: Source,
    path: Path | str,
    config: Mapping[str, Any] | None = None,
    *,
    coding: str = "auto",
    float: str = "float32",
) -> int:
    """Write a stored network; -> bytes of the file. A failure leaves an older file whole.

    config: kept in the file as JSON. coding: "auto" codes each tensor by its entropy where that is smaller than
    bit-packing, "packed" never. float: see `stored_model_of`.
    Raises: ValueError when quantized weights are not finite or an option is unknown, OSError from the disk.
    """
    parts = _parts(source, config, coding, float)
    with replacing(Path(path)) as file:
        for part in parts:
            file.write(part)
    return sum(len(part) for part in parts)


def serialize(
    source: Source, config: Mapping[str, Any] | None = None, *, coding: str = "auto", float: str = "float32"
) -> bytes:
    """The bytes that `save` writes."""
    return b"".join(_parts(source, config, coding, float))


def _parts(source: Source, config: Mapping[str, Any] | None, coding: str, float: str) -> list[bytes | memoryview]:
    """The file as parts, in their order."""
    if coding not in CODINGS:
        raise ValueError(f"coding={coding!r}: allowed are {', '.join(CODINGS)}")
    stored = stored_model_of(source, float, at_once=False)
    rows, payloads, entries = [], {name: list[Bytes]() for name in KINDS}, 0
    for name, tensor in stored.tensors.items():
        cpu = tensor.to("cpu")
        check_stored(name, cpu)
        coded = _encoded(name, cpu, coding == "packed")
        payloads["scales"].append(cpu.scales.numpy().view(np.uint8))
        for kind in ("levels", "bits", "models"):
            payloads[kind].append(getattr(coded, kind))
        rows.append(_row(name, cpu, coded))
        entries += len(cpu.levels)
    others = [*stored.floats.values(), *stored.buffers.values()]
    payloads["floats"] = [_raw(tensor) for tensor in others]
    index = {
        "tensors": rows,
        "floats": [[name, *_kind(tensor)] for name, tensor in stored.floats.items()],
        "buffers": [[name, *_kind(tensor)] for name, tensor in stored.buffers.items()],
        "tied": stored.tied,
        "config": _plain_dict(config),
    }
    text = _json(index)
    payloads["index"] = [np.frombuffer(zlib.compress(text, 9), np.uint8)]
    bytes_now = sum(len(part) for parts in payloads.values() for part in parts)
    payloads["index"].append(np.zeros(fewest_bytes(entries, text, bytes_now) - bytes_now, np.uint8))
    sizes = {name: sum(len(part) for part in parts) for name, parts in payloads.items()}
    plain = {"format": format_of({row[6] for row in rows}), "method": stored.method}
    head = header(sizes, {**plain, "checksum": checksum(payloads, plain)})
    return [head, *(part.data for parts in payloads.values() for part in parts)]


def _encoded(name: str, tensor: Stored, packed: bool) -> Coded:
    try:
        levels, bits = tensor.levels.numpy(), tensor.bits.numpy()
        return encode_tensor(levels, bits, tensor.group_size, tensor.top, tensor.shape, packed)
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from error


def _plain_dict(config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"the configuration must be a dict, not a {type(config).__name__}")
    return dict(config or {})


def _json(index: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(index, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the configuration cannot be kept as JSON: {error}") from error


def _row(name: str, tensor: Stored, coded: Coded) -> list[Any]:
    lengths = [len(coded.levels), len(coded.bits), len(coded.models)]
    return [name, *_shape(tensor), tensor.grid, tensor.group_size, tensor.top, *coded.coding, *lengths]


def check_storable(source: Source) -> None:
    """Check that a network can be stored, whatever its weights become. Raises: ValueError naming the type."""
    stored = stored_model_of(source, at_once=False)
    for tensor in (*stored.floats.values(), *stored.buffers.values()):
        _kind(tensor)


def _shape(tensor: Stored | Tensor) -> tuple[list[int], str]:
    return list(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def _kind(tensor: Tensor) -> tuple[list[int], str]:
    shape, dtype = _shape(tensor)
    if dtype not in DTYPES:
        raise ValueError(f"tensors of type {dtype} cannot be stored; possible are {', '.join(DTYPES)}")
    return shape, dtype


def _raw(tensor: Tensor) -> Bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Bytes = flat.view(torch.uint8).numpy()
    return raw
