"""A whole network as it is stored, and the plain state that can be saved and restored anywhere.

`StoredModel` is what quantizers give and files hold: levels of the quantized tensors, everything else as it is.
A *state* is the same as dicts of tensors and plain values, so that `torch.save` and `torch.load` with its safe
default carry it. Restoring checks every name, shape and length before the first weight of the model changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .grids import Stored, check_stored
from .groups import group_count
from .packing import bits_table_bytes, pack_bits, pack_levels, packed_levels_bytes, unpack_bits, unpack_levels
from .selection import Selection

FORMAT = "diffq_exp.state/1"


@dataclass(frozen=True)
class StoredModel:
    """All that a network needs to compute again what it computes in memory.

    floats: parameters that are not quantized, as stored (float16 where asked for).
    buffers: every other entry of the model's state_dict (batch norm statistics, integer parameters).
    tied: {other name: the stored name that it shares its tensor with}.
    """

    method: str
    tensors: Mapping[str, Stored]
    floats: dict[str, Tensor]
    buffers: dict[str, Tensor]
    tied: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Tensor]:
        """What is not quantized, by the name it is stored under."""
        return {**self.floats, **self.buffers}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by every name."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        shapes |= {name: tuple(tensor.shape) for name, tensor in self.plain().items()}
        return shapes | {other: shapes[name] for other, name in self.tied.items()}

    def value(self, name: str) -> Tensor:
        """One tensor by any name it has in a state_dict, a quantized one as its values."""
        name = self.tied.get(name, name)
        return self.tensors[name].values() if name in self.tensors else self.plain()[name]

    def values(self) -> dict[str, Tensor]:
        """Every tensor by every name it has in a state_dict, quantized ones as their values."""
        values = {name: stored.values() for name, stored in self.tensors.items()} | self.plain()
        return values | {other: values[name] for other, name in self.tied.items()}

    def packed_bytes(self) -> int:
        """Bytes of all tensors: bit-packed levels and widths, scales, floats and buffers."""
        others = [*self.floats.values(), *self.buffers.values()]
        quantized = sum(_packed_bytes(stored) for stored in self.tensors.values())
        return quantized + sum(tensor.numel() * tensor.element_size() for tensor in others)


def _packed_bytes(stored: Stored) -> int:
    bits = stored.bits.cpu().numpy()
    levels = packed_levels_bytes(bits, stored.group_size, stored.levels.numel())
    return levels + bits_table_bytes(bits) + stored.scales.nbytes


def describe(
    model: nn.Module,
    selection: Selection,
    tensors: Mapping[str, Stored],
    method: str,
    float16: bool = False,
    learned: Collection[str] = (),
) -> StoredModel:
    """Put a model's quantized tensors together with the rest of its state, `learned` logits or steps left out."""
    dtype = torch.float16 if float16 else None
    floats = {item.name: item.param.detach().to(dtype or item.param.dtype) for item in selection.floats}
    known = {*tensors, *floats, *selection.tied, *learned}
    buffers = {key: value for key, value in model.state_dict().items() if key not in known}
    for key, value in buffers.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{key!r} in the model's state_dict is a {type(value).__name__}, not a tensor")
    return StoredModel(method, tensors, floats, buffers, dict(selection.tied))


def pack_state(stored: StoredModel, packed: bool) -> dict[str, Any]:
    """A `StoredModel` as nested dicts of CPU tensors and plain values; `packed` bit-packs levels and widths."""
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


def unpack_state(state: Mapping[str, Any]) -> StoredModel:
    """Undo `pack_state`. Raises: ValueError that names what is missing or does not fit."""
    if not isinstance(state, Mapping) or state.get("format") != FORMAT:
        raise ValueError(f"not a quantized state of this package: it lacks format {FORMAT!r}")
    if missing := {"method", "tensors", "floats", "buffers", "tied"} - set(state):
        raise ValueError(f"the quantized state lacks {', '.join(sorted(missing))}")
    tensors = {name: _unpack_tensor(name, fields) for name, fields in state["tensors"].items()}
    return StoredModel(state["method"], tensors, state["floats"], state["buffers"], state["tied"])


def _unpack_tensor(name: str, fields: Mapping[str, Any]) -> Stored:
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
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise ValueError(f"tensor {name!r} of the quantized state: {fault}") from fault
    check_stored(name, stored)
    return stored


def write_into(model: nn.Module, stored: StoredModel, learned: Collection[str] = ()) -> None:
    """Copy stored values into a model's parameters and buffers; `learned` are a quantizer's own parameters.

    Raises: as `targets_of`; the model is then untouched.
    """
    targets = targets_of(model, stored, learned)
    with torch.no_grad():
        for name, value in stored.plain().items():
            targets[name].copy_(value)
        for name, tensor in stored.tensors.items():
            tensor.write(targets[name])
        for other, name in stored.tied.items():
            if targets[other].data_ptr() != targets[name].data_ptr():
                targets[other].copy_(stored.value(other))


def targets_of(model: nn.Module, stored: StoredModel, learned: Collection[str] = ()) -> dict[str, Tensor]:
    """Where stored values go. Raises: ValueError naming tensors that one of the two lacks, or has otherwise."""
    targets = {name: value for name, value in model.state_dict().items() if name not in learned}
    check_fit(targets, stored.shapes())
    _check_ties(targets, stored)
    return targets


def check_fit(targets: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises: ValueError naming tensors that only one of the two has, or that have another shape there."""
    if missing := sorted(set(targets) - set(shapes)):
        raise ValueError(f"the stored model lacks {_names(missing)}, which the network has")
    if extra := sorted(set(shapes) - set(targets)):
        raise ValueError(f"the network has no {_names(extra)}, which the stored model holds")
    for name, shape in shapes.items():
        if tuple(shape) != tuple(targets[name].shape):
            raise ValueError(
                f"{name!r} is stored with shape {tuple(shape)}, the network has {tuple(targets[name].shape)}"
            )


def _check_ties(targets: Mapping[str, Tensor], stored: StoredModel) -> None:
    """One tensor of the model cannot take two values (which detect_bound=False can store). Raises: ValueError."""
    first: dict[tuple[int, torch.Size], str] = {}
    for name, target in targets.items():
        other = first.setdefault((target.data_ptr(), target.shape), name)
        if not target.data_ptr():  # without memory: empty, or on the meta device
            continue
        one_value = stored.tied.get(other, other) == stored.tied.get(name, name)
        if not one_value and not torch.equal(stored.value(other), stored.value(name)):
            raise ValueError(
                f"{other!r} and {name!r} are one tensor in the network, and stored with different values"
            )


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
