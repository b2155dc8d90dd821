"""A stored network as a *state*: dicts of tensors and plain values, which torch.save and torch.load carry.

No class of this package is in a state, so that `torch.load` with its safe default reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .grids import Stored, check_stored
from .groups import group_count
from .network import StoredModel
from .packing import pack_bits, pack_levels, unpack_bits, unpack_levels

FORMAT = "diffq_exp.state/1"
PARTS = ("method", "tensors", "floats", "buffers", "tied")
State = Mapping[str, Any]  # nested: values are tensors, strings, numbers, lists and such mappings


def pack_state(stored: StoredModel, packed: bool) -> dict[str, Any]:
    """A stored network as nested dicts of CPU tensors and plain values; `packed` bit-packs levels and widths.

    Raises: ValueError naming a tensor whose quantized weights are not finite.
    """
    return {
        "format": FORMAT,
        "method": stored.method,
        "tensors": {name: _pack_tensor(name, tensor, packed) for name, tensor in stored.tensors.items()},
        "floats": {name: tensor.detach().cpu().clone() for name, tensor in stored.floats.items()},
        "buffers": {name: tensor.detach().cpu().clone() for name, tensor in stored.buffers.items()},
        "tied": dict(stored.tied),
    }


def _pack_tensor(name: str, stored: Stored, packed: bool) -> dict[str, Any]:
    stored = stored.to("cpu")
    check_stored(name, stored)
    levels, bits = stored.levels, stored.bits
    if packed:
        widths = bits.numpy()
        levels = torch.from_numpy(pack_levels(levels.numpy(), widths, stored.group_size))
        bits = torch.from_numpy(pack_bits(widths))
    return {
        "grid": stored.grid,
        "shape": list(stored.shape),
        "dtype": str(stored.dtype).removeprefix("torch."),
        "group_size": stored.group_size,
        "packed": packed,
        "levels": levels,
        "bits": bits,
        "scales": stored.scales,
        "top": stored.top,
    }


def unpack_state(state: State) -> StoredModel:
    """Undo `pack_state`. Raises: ValueError that names what is missing or does not fit."""
    if not isinstance(state, Mapping) or state.get("format") != FORMAT:
        raise ValueError(f"not a quantized state of this package: it lacks format {FORMAT!r}")
    if missing := set(PARTS) - set(state):
        raise ValueError(f"the quantized state lacks {', '.join(sorted(missing))}")
    tensors = {name: _unpack_tensor(name, fields) for name, fields in state["tensors"].items()}
    return StoredModel(state["method"], tensors, state["floats"], state["buffers"], state["tied"])


def _unpack_tensor(name: str, fields: State) -> Stored:
    try:
        shape, group_size = tuple(fields["shape"]), int(fields["group_size"])
        levels, bits = fields["levels"], fields["bits"]
        entries = torch.Size(shape).numel()
        if fields["packed"]:
            widths = unpack_bits(bits.numpy(), group_count(entries, group_size))
            levels = torch.from_numpy(unpack_levels(levels.numpy(), widths, group_size, entries))
            bits = torch.from_numpy(widths)
        dtype = getattr(torch, fields["dtype"])
        stored = Stored(fields["grid"], shape, dtype, group_size, levels, bits, fields["scales"], fields["top"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"tensor {name!r} of the quantized state: {error}") from error
    check_stored(name, stored)
    return stored
