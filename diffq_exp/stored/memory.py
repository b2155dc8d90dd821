"""Tensors and the memory they lie in: which are one under two names, and which can be stored and read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

Memory = tuple[Any, ...]


def has_memory(tensor: Tensor) -> bool:
    """Whether it is an array that lies somewhere: not sparse, not on the meta device, of a known shape."""
    return not is_lazy(tensor) and tensor.layout is torch.strided and not tensor.is_meta


def memory_of(tensor: Tensor) -> Memory | None:
    """What two tensors have in common if all their entries are the same ones; None where that cannot be."""
    if not has_memory(tensor) or not tensor.numel():
        return None
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def state_of(model: nn.Module) -> dict[str, Any]:
    """The state_dict, in which every tensor is the model's own.

    Raises: ValueError naming an entry that `state_dict()` makes anew, into which nothing can be written.
    """
    state: dict[str, Any] = model.state_dict()
    own = {memory_of(tensor) for tensor in (*model.parameters(), *model.buffers())}
    others = [
        name for name, value in state.items() if isinstance(value, Tensor) and memory_of(value) not in {None, *own}
    ]
    again = model.state_dict() if others else state
    for name in others:
        if memory_of(again[name]) != memory_of(state[name]):
            raise ValueError(f"{name!r} is made anew by each state_dict() of the model: it cannot be read back")
    return state


def check_entry(name: str, value: object) -> None:
    """Raises: ValueError naming an entry of a state_dict that cannot be stored, and why."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name!r} in the model's state_dict is a {type(value).__name__}, not a tensor")
    if is_lazy(value):
        raise ValueError(f"{name!r} has no shape yet: run a forward of the model first")
    if value.layout is not torch.strided:
        raise ValueError(f"{name!r} cannot be stored: it is sparse ({value.layout})")
    if value.is_meta:
        raise ValueError(f"{name!r} cannot be stored: it is on the meta device, and has no values")


def check_apart(tensors: Mapping[str, Tensor]) -> None:
    """Raises: ValueError naming two tensors that share some of their memory, and not all of it."""
    by_storage: dict[int, list[str]] = defaultdict(list)
    for name, tensor in tensors.items():
        if memory_of(tensor) is not None:
            by_storage[tensor.untyped_storage().data_ptr()].append(name)
    for names in by_storage.values():
        for one, other in _meeting(names, tensors):
            raise ValueError(f"{one!r} and {other!r} share a part of their memory: one of them has to be a copy")


def _meeting(names: Iterable[str], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Pairs of tensors in one storage that meet there, and are not the same."""
    ordered = sorted(names, key=lambda name: tensors[name].data_ptr())
    for place, one in enumerate(ordered):
        end = tensors[one].data_ptr() + _extent(tensors[one]) * tensors[one].element_size()
        for other in ordered[place + 1 :]:
            if tensors[other].data_ptr() >= end:
                break
            if memory_of(tensors[one]) != memory_of(tensors[other]) and _meet(tensors[one], tensors[other]):
                yield one, other


def _extent(tensor: Tensor) -> int:
    """Entries from the first to behind the last one in memory."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _meet(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors in one storage have an entry in common; views may lie between each other."""
    if one.dtype != other.dtype:
        return True
    taken = torch.zeros(one.untyped_storage().nbytes() // one.element_size(), dtype=torch.bool)
    for tensor in (one, other):
        view = taken.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        if view.any():
            return True
        view.fill_(True)
    return False
