"""Tensors and the memory they lie in: which are one under two names, and which can be stored and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    distinct: dict[Memory, str] = {}
    for name, tensor in tensors.items():
        if (memory := memory_of(tensor)) is not None:
            distinct.setdefault(memory, name)
    for names in _overlapping({name: tensors[name] for name in distinct.values()}):
        _check_apart({name: tensors[name] for name in names})


def check_beside(buffers: Mapping[str, Tensor], quantized: Mapping[str, Tensor]) -> None:
    """Raises: ValueError naming a buffer that no file has in a part of the memory of a quantized parameter."""
    memory = {value.untyped_storage().data_ptr() for value in quantized.values() if has_memory(value)}
    for name, buffer in buffers.items():
        if has_memory(buffer) and buffer.untyped_storage().data_ptr() in memory:
            check_apart({**quantized, name: buffer})


def _overlapping(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """The names in groups of two or more whose ranges of addresses overlap, though their bytes may lie apart."""
    groups: list[list[str]] = []
    last = (-2, 0)
    places = {name: place for place, name in enumerate(tensors)}
    for (device, start), end, name in sorted((*_range(tensor), name) for name, tensor in tensors.items()):
        if (device, start) >= last:
            groups.append([])
        groups[-1].append(name)
        last = max(last, (device, end))
    return [sorted(names, key=places.__getitem__) for names in groups if len(names) > 1]


def _range(tensor: Tensor) -> tuple[tuple[int, int], int]:
    """The device and the address of its first byte, and the address after its last one."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return (tensor.get_device(), start), start + (last + 1) * tensor.element_size()


def _check_apart(tensors: Mapping[str, Tensor]) -> None:
    """The same for tensors whose ranges overlap; their bytes are marked, one tensor after the other."""
    marks = _Marks(tensors.values())
    for name, tensor in tensors.items():
        taken = marks.of(tensor)
        if taken.any():
            other = next(one for one in tensors if _meet(tensors[one], tensor))
            raise ValueError(f"{other!r} and {name!r} share a part of their memory: one of them has to be a copy")
        taken.fill_(True)


class _Marks:
    """One for each byte between the first and the last of some tensors."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        ranges = [_range(tensor) for tensor in tensors]
        self._first = min(start for (_, start), _ in ranges)
        self._marks = torch.zeros(max(end for _, end in ranges) - self._first, dtype=torch.bool)

    def of(self, tensor: Tensor) -> Tensor:
        size = tensor.element_size()
        strides = (*(size * stride for stride in tensor.stride()), 1)
        return self._marks.as_strided((*tensor.shape, size), strides, tensor.data_ptr() - self._first)


def _meet(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have a byte in common; views may lie between each other."""
    marks = _Marks((one, other))
    marks.of(one).fill_(True)
    return bool(marks.of(other).any())
