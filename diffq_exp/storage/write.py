"""A network in memory -> its file; see layout.py.

Tensors are stored one at a time and their bytes written part by part, so that writing takes little more memory than
the largest tensor and the file.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..common.files import replacing
from ..stored.floats import folded, is_constant, narrowed
from ..stored.grids import Stored, check_stored
from ..stored.memory import state_of
from ..stored.network import StoredModel, StoresModel, check_one_form, describe, owner_of
from ..stored.packing import Bytes
from ..stored.selection import select
from .coding import Coded, encode_tensor
from .dictionary import DICTIONARY
from .layout import CODINGS, DTYPES, FORMAT, PAYLOADS, PER_CHANNEL, checksum, fewest_bytes, header, number_bytes
from .tensor_file import raw

Source = StoresModel | nn.Module | StoredModel


def stored_model_of(
    source: Source, float: str = "float32", fold: bool = False, at_once: bool = True
) -> StoredModel:
    """The stored network of a quantizer, of the model it is attached to, or of a model without one.

    float: the precision of what is not quantized, see `narrowed`. fold: batch norm as scale and shift, see
    `folded`. at_once: see StoresModel.stored_model.
    Raises: ValueError for another `float`; TypeError for another source, or a StoredModel with `fold`.
    """
    model: nn.Module | None = None
    if isinstance(source, nn.Module):
        model, owner = source, owner_of(source)
        if owner is None:
            stored = describe(source, select(source, 0, ["*"], detect_bound=True), {}, "none")
        else:
            stored = owner.stored_model(at_once)
    elif isinstance(source, StoresModel):
        model, stored = source.model, source.stored_model(at_once)
    elif isinstance(source, StoredModel):
        stored = source
    else:
        raise TypeError(f"a quantizer, an nn.Module or a StoredModel can be stored, not a {type(source).__name__}")
    if fold and model is None:
        raise TypeError(
            "fold=True needs a network: a StoredModel does not say which of its tensors are a batch norm"
        )
    return narrowed(folded(stored, model) if fold and model is not None else stored, float)


def save(
    source: Source,
    path: Path | str,
    config: Mapping[str, object] | None = None,
    *,
    coding: str = "auto",
    float: str = "float32",
    fold: bool = False,
) -> int:
    """Write a stored network; -> bytes of the file. A failure leaves an older file whole.

    config: kept in the file as JSON. coding: "auto" codes each tensor by its entropy where that is smaller than
    bit-packing, "packed" never. float, fold: see `stored_model_of`.
    Raises: ValueError when quantized weights are not finite or an option is unknown, OSError from the disk.
    """
    parts = _parts(stored_model_of(source, float, fold, at_once=False), config, coding)
    with replacing(Path(path)) as file:
        for part in parts:
            file.write(part)
    return sum(len(part) for part in parts)


def serialize(
    source: Source,
    config: Mapping[str, object] | None = None,
    *,
    coding: str = "auto",
    float: str = "float32",
    fold: bool = False,
) -> bytes:
    """The bytes that `save` writes."""
    return b"".join(_parts(stored_model_of(source, float, fold, at_once=False), config, coding))


def _parts(stored: StoredModel, config: Mapping[str, object] | None, coding: str) -> list[bytes | memoryview]:
    """The file as parts, in their order."""
    if coding not in CODINGS:
        raise ValueError(f"coding={coding!r}: allowed are {', '.join(CODINGS)}")
    rows, payloads, entries = [], {name: list[Bytes]() for name in PAYLOADS}, 0
    for name, tensor in stored.tensors.items():
        cpu = tensor.to("cpu")
        check_stored(name, cpu)
        coded = _encoded(name, cpu, coding == "packed")
        payloads["scales"].append(cpu.scales.numpy().view(np.uint8))
        for kind in ("levels", "bits", "models"):
            payloads[kind].append(getattr(coded, kind))
        rows.append(_row(name, cpu, coded))
        entries += len(cpu.levels)
    plain_rows = {
        kind: [_plain_row(name, tensor) for name, tensor in tensors.items()]
        for kind, tensors in (("floats", stored.floats), ("buffers", stored.buffers))
    }
    constant = {row[0] for part in plain_rows.values() for row in part if len(row) == 4}
    plain = stored.plain()
    payloads["floats"] = [raw(value) for name, value in plain.items() if name not in constant]
    entries += sum(plain[name].numel() for name in constant)
    text = _json(
        {"method": stored.method, "tensors": rows, **plain_rows, "tied": stored.tied, "config": _plain_dict(config)}
    )
    sizes = {row[0]: math.prod(row[1]) for part in (rows, *plain_rows.values()) for row in part}
    return _container(text, payloads, entries, sum(sizes[name] for name in stored.tied.values()))


def _container(
    index: bytes, payloads: Mapping[str, list[Bytes]], entries: int, tied: int
) -> list[bytes | memoryview]:
    """The parts of a file with this index and these payloads; see layout.py."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    packed = deflate.compress(index) + deflate.flush()
    lengths = [len(packed), *(sum(map(len, payloads[name])) for name in PAYLOADS)]
    padding = fewest_bytes(entries, tied, index, sum(lengths)) - sum(lengths)
    front = b"".join(map(number_bytes, lengths)) + packed
    parts = [np.frombuffer(front, np.uint8), *(part for name in PAYLOADS for part in payloads[name])]
    parts.append(np.zeros(padding, np.uint8))
    digest = checksum(parts)
    length = len(digest) + sum(map(len, parts))
    return [header({"data": ("U8", [length], length)}, {"format": FORMAT}), digest, *(part.data for part in parts)]


def coded_bytes(name: str, tensor: Stored, coding: str = "auto") -> int:
    """Bytes of the levels, bits and models of a tensor in a file."""
    coded = _encoded(name, tensor, coding == "packed")
    return len(coded.levels) + len(coded.bits) + len(coded.models)


def _encoded(name: str, tensor: Stored, packed: bool) -> Coded:
    try:
        levels, bits = tensor.levels.numpy(), tensor.bits.numpy()
        return encode_tensor(levels, bits, tensor.group_size, tensor.top, tensor.shape, packed)
    except ValueError as error:
        raise ValueError(f"tensor {name!r}: {error}") from error


def _plain_dict(config: Mapping[str, object] | None) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"the configuration must be a dict, not a {type(config).__name__}")
    return dict(config or {})


def _json(index: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(index, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the configuration cannot be kept as JSON: {error}") from error


def _row(name: str, tensor: Stored, coded: Coded) -> list[Any]:
    lengths = [len(coded.levels), len(coded.bits), len(coded.models)]
    grid = tensor.grid + (PER_CHANNEL if tensor.channel_size else "")
    return [name, *_shape(tensor), grid, tensor.group_size, tensor.top, *coded.coding, *lengths]


def check_storable(source: StoresModel | nn.Module) -> None:
    """Check that a network can be stored and read back, whatever its weights become.

    Raises: ValueError naming a tensor that cannot.
    """
    stored = stored_model_of(source, at_once=False)
    model = source if isinstance(source, nn.Module) else source.model
    for name, tensor in stored.plain().items():
        _plain_row(name, tensor)
    for name, value in state_of(model).items():
        if name in stored.tensors:
            _check_type(name, value)
    check_one_form(model, stored)


def _shape(tensor: Stored | Tensor) -> tuple[list[int], str]:
    return list(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def _check_type(name: str, tensor: Tensor) -> None:
    if (kind := _shape(tensor)[1]) not in DTYPES:
        raise ValueError(f"{name!r} is of type {kind}, which cannot be stored; possible are {', '.join(DTYPES)}")


def _plain_row(name: str, tensor: Tensor) -> list[Any]:
    """The row of a tensor that is not quantized; a constant tensor has its value there, and no bytes."""
    _check_type(name, tensor)
    shape, dtype = _shape(tensor)
    row: list[object] = [name, shape, dtype]
    if is_constant(tensor) and math.isfinite(value := tensor[(0,) * tensor.dim()].item()):
        row.append(value)
    return row
