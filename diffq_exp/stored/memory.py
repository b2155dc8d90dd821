"""Tensors and the memory they lie in: which are one under two names, and which can be stored and read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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
    by_storage: dict[int, dict[Memory, str]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if (memory := memory_of(tensor)) is not None:
            by_storage[tensor.untyped_storage().data_ptr()].setdefault(memory, name)
    for names in by_storage.values():
        if len(names) > 1:
            _check_apart({name: tensors[name] for name in names.values()})


def _check_apart(tensors: Mapping[str, Tensor]) -> None:
    """The same for tensors of one storage, whose bytes are marked one tensor after the other."""
    storage = next(iter(tensors.values())).untyped_storage()
    marks = torch.zeros(storage.nbytes(), dtype=torch.bool)
    for name, tensor in tensors.items():
        taken = _bytes_of(tensor, marks)
        if taken.any():
            other = next(one for one in tensors if _meet(tensors[one], tensor))
            raise ValueError(f"{other!r} and {name!r} share a part of their memory: one of them has to be a copy")
        taken.fill_(True)


def _bytes_of(tensor: Tensor, marks: Tensor) -> Tensor:
    """The marks, one for each byte of its storage, of the bytes that a tensor takes."""
    size = tensor.element_size()
    strides = (*(size * stride for stride in tensor.stride()), 1)
    return marks.as_strided((*tensor.shape, size), strides, size * tensor.storage_offset())


def _meet(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors in one storage have a byte in common; views may lie between each other."""
    marks = torch.zeros(one.untyped_storage().nbytes(), dtype=torch.bool)
    _bytes_of(one, marks).fill_(True)
    return bool(_bytes_of(other, marks).any())
