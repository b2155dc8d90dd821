"""A whole network as it is stored, and how it gets into and out of a model.

`StoredModel` is what quantizers give and files hold: levels of the quantized tensors, and everything else as it is.
Writing it into a model checks every name and every shape before the first weight changes.

`StoresModel` is all that files need to know of a quantizer, so that they work with any quantizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..common.names import few
from .grids import Stored, zero_rows
from .memory import Memory, check_apart, check_beside, check_entry, has_memory, memory_of, state_of
from .packing import bits_table_bytes, packed_levels_bytes
from .selection import Selection


@dataclass(frozen=True)
class StoredModel:
    """All that a network needs to compute again what it computes in memory.

    method: the name of the quantization method, "none" without one.
    floats: parameters that are not quantized, as stored (float16 if the quantizer says so).
    buffers: every other entry of the model's state_dict (batch norm statistics, integer parameters).
    tied: {other name: the stored name that it shares its tensor with}.
    """

    method: str
    tensors: Mapping[str, Stored]
    floats: dict[str, Tensor]
    buffers: dict[str, Tensor]
    tied: dict[str, str] = field(default_factory=dict)

    def plain(self) -> dict[str, Tensor]:
        """The tensors that are not quantized, by the name they are stored under."""
        return {**self.floats, **self.buffers}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor by every name it has in a state_dict."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        shapes |= {name: tuple(tensor.shape) for name, tensor in self.plain().items()}
        return shapes | {other: shapes[name] for other, name in self.tied.items()}

    def value(self, name: str) -> Tensor:
        """A tensor by any name it has in a state_dict; a quantized tensor as the weights it stands for."""
        name = self.tied.get(name, name)
        return self.tensors[name].values() if name in self.tensors else self.plain()[name]

    def values(self) -> dict[str, Tensor]:
        """Every tensor by every name it has in a state_dict; quantized tensors as the weights they stand for."""
        values = {name: stored.values() for name, stored in self.tensors.items()} | self.plain()
        return values | {other: values[name] for other, name in self.tied.items()}

    def without_levels(self) -> StoredModel:
        """The same with levels that are all zero: what it takes beside them."""
        zeros = {
            name: replace(stored, levels=torch.zeros_like(stored.levels), bits=torch.ones_like(stored.bits))
            for name, stored in self.tensors.items()
        }
        return replace(self, tensors=zeros)

    def zero_rows(self) -> dict[str, list[int]]:
        """{name: [rows that are all zero, rows]} of the quantized tensors that have such rows."""
        zeros = {name: zero_rows(stored) for name, stored in self.tensors.items()}
        return {name: [count, self.tensors[name].shape[0]] for name, count in zeros.items() if count}

    def packed_bytes(self) -> int:
        """Bytes of all tensors: bit-packed levels and widths, scales, floats and buffers."""
        quantized = sum(_packed_bytes(stored) for stored in self.tensors.values())
        return quantized + sum(tensor.numel() * tensor.element_size() for tensor in self.plain().values())


def _packed_bytes(stored: Stored) -> int:
    bits = stored.bits.cpu().numpy()
    levels = packed_levels_bytes(bits, stored.group_size, stored.levels.numel())
    return levels + bits_table_bytes(bits) + stored.scales.nbytes


class StoresModel(ABC):
    """An object that gives the stored form of its model and takes it back: a quantizer."""

    model: nn.Module

    @abstractmethod
    def stored_model(self, at_once: bool = True) -> StoredModel:
        """The network as it would be stored now; its tensors may share memory with the model.

        at_once: False computes each quantized tensor when it is read, and keeps none of them. This takes less
        memory, but the result follows the model if the model is trained further.
        """

    @abstractmethod
    def restore(self, stored: StoredModel) -> None:
        """Put a stored network into the model. Raises: ValueError naming what does not fit, before any change."""

    @abstractmethod
    def learned(self) -> Mapping[str, Tensor]:
        """What was added to the model in order to learn the quantization, by its name in the state_dict."""


def owner_of(model: nn.Module) -> StoresModel | None:
    """The quantizer of this very module, or None; a copy of a model has a quantizer of its own.

    It is found by the forward hooks: they are methods of the quantizer, or of an object whose `owner` it is.
    """
    for hook in model._forward_pre_hooks.values():
        holder = getattr(hook, "__self__", None)
        owner = getattr(holder, "owner", holder)
        if isinstance(owner, StoresModel):
            return owner
    return None


def describe(
    model: nn.Module,
    selection: Selection,
    tensors: Mapping[str, Stored],
    method: str,
    float16: bool = False,
    learned: Collection[str] = (),
) -> StoredModel:
    """Join a model's quantized tensors with the rest of its state; names in `learned` are left out.

    Raises: ValueError naming an entry of the state_dict that cannot be stored and read back.
    """
    dtype = torch.float16 if float16 else None
    whole = state_of(model)
    state = {name: value for name, value in whole.items() if name not in learned}
    for name, value in state.items():
        check_entry(name, value)
    floats = {item.name: item.param.detach().to(dtype or item.param.dtype) for item in selection.floats}
    if unknown := sorted({*tensors, *floats} - state.keys()):
        raise ValueError(f"{unknown[0]!r} is a parameter of the model, but not in its state_dict")
    check_apart(state)
    known = {*tensors, *floats, *selection.tied}
    unstored = {name: value for name, value in model.named_buffers() if name not in whole}
    check_beside(unstored, {name: state[name] for name in tensors})
    tied = dict(selection.tied) | _tied_buffers({**state, **unstored}, known, tensors)
    tied = {name: stored for name, stored in tied.items() if name not in unstored}
    buffers = {name: value for name, value in state.items() if name not in known and name not in tied}
    return StoredModel(method, tensors, floats, buffers, tied)


def _tied_buffers(state: Mapping[str, Tensor], known: Collection[str], tensors: Collection[str]) -> dict[str, str]:
    """{name: the name that is stored} of buffers in the memory of a parameter or of a buffer before them.

    Raises: ValueError naming one whose parameter is quantized: it would see other values than the parameter.
    """
    tied: dict[str, str] = {}
    first: dict[Memory, str] = {}
    for name in sorted(state, key=lambda name: name not in known):
        memory = memory_of(state[name])
        if memory is None or first.setdefault(memory, name) == name or name in known:
            continue
        if first[memory] in tensors:
            raise ValueError(
                f"{name!r} is a buffer in the memory of {first[memory]!r}, which must not be quantized"
            )
        tied[name] = first[memory]
    return tied


def check_one_form(model: nn.Module, stored: StoredModel) -> None:
    """Raises: ValueError naming a tensor of the model with two forms in `stored`, of which it can take one only."""
    first: dict[Memory, str] = {}
    for name, value in state_of(model).items():
        memory = memory_of(value)
        other = name if memory is None else first.setdefault(memory, name)
        if stored.tied.get(other, other) != stored.tied.get(name, name) and {name, other} & stored.tensors.keys():
            raise ValueError(
                f"{other!r} and {name!r} are one tensor and cannot be quantized apart (detect_bound=False)"
            )


def write_into(model: nn.Module, stored: StoredModel, learned: Collection[str] = ()) -> None:
    """Copy stored values into a model's parameters and buffers; `learned` are a quantizer's own parameters.

    Raises: as `targets_of`; the model is then unchanged.
    """
    targets = targets_of(model, stored, learned)
    with torch.no_grad():
        for name, value in stored.plain().items():
            _write(targets[name], value)
        for name, tensor in stored.tensors.items():
            if 0 in targets[name].stride():
                _write(targets[name], tensor.values())
            else:
                tensor.write(targets[name])
        for other, name in stored.tied.items():
            if targets[other].data_ptr() != targets[name].data_ptr():
                _write(targets[other], stored.value(other))


def _write(target: Tensor, value: Tensor) -> None:
    """Copy into a tensor, which may repeat its entries along a dimension."""
    for dim, stride in enumerate(target.stride()):
        if stride == 0 and target.shape[dim]:
            target, value = target.narrow(dim, 0, 1), value.narrow(dim, 0, 1)
    target.copy_(value)


def targets_of(model: nn.Module, stored: StoredModel, learned: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors of `model` that stored values are written to, by name.

    Raises: ValueError naming tensors that only the model or only the stored network has, or whose shapes differ.
    """
    targets = {name: value for name, value in state_of(model).items() if name not in learned}
    check_fit(targets, stored.shapes())
    _check_ties(targets, stored)
    return targets


def check_fit(targets: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> None:
    """Compare a network with stored shapes.

    Raises: ValueError naming tensors that only one of the two has, whose shapes differ, or that are not in memory.
    """
    if missing := sorted(set(targets) - set(shapes)):
        raise ValueError(f"the stored model lacks {few(missing)}, which the network has")
    if extra := sorted(set(shapes) - set(targets)):
        raise ValueError(f"the network has no {few(extra)}, which the stored model holds")
    if absent := sorted(name for name, value in targets.items() if not has_memory(value)):
        raise ValueError(f"the network has no memory for {few(absent)}; model.to_empty(device='cpu') gives it some")
    for name, shape in shapes.items():
        if tuple(shape) != tuple(targets[name].shape):
            raise ValueError(
                f"{name!r} is stored with shape {tuple(shape)}, the network has {tuple(targets[name].shape)}"
            )


def _check_ties(targets: Mapping[str, Tensor], stored: StoredModel) -> None:
    """A tensor of the model cannot take two values (detect_bound=False can store two). Raises: ValueError."""
    first: dict[tuple[int, torch.Size], str] = {}
    for name, target in targets.items():
        other = first.setdefault((target.data_ptr(), target.shape), name)
        if not target.data_ptr():  # without memory: empty, or on the meta device
            continue
        same_name = stored.tied.get(other, other) == stored.tied.get(name, name)
        if not same_name and not torch.equal(stored.value(other), stored.value(name)):
            raise ValueError(
                f"{other!r} and {name!r} are one tensor in the network, but are stored with different values"
            )
