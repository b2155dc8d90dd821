"""Memory that goes round, for what a training step makes anew each time.

A large tensor that torch allocates in a CPU's memory comes from the system page by page, and goes back to it: for
45 MB that takes ten times as long as writing to it once (12 against 1 ms, two cores of an EPYC, torch 2.15). Here
the memory of a tensor is kept when the tensor dies, for the next one of its size. Whoever still holds a tensor,
autograd's graph say, keeps its memory out of the round; what is kept is never more than was in use at once.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGE = 2**16  # bytes; smaller blocks the system's allocator keeps itself
NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def in_cpu_memory(tensor: Tensor) -> bool:
    """Whether numpy can look at it: floats in a CPU's memory, outside of torch.compile, at least one entry."""
    return (
        not torch.compiler.is_compiling()
        and tensor.device.type == "cpu"
        and tensor.dtype in NUMPY
        and type(tensor) in (Tensor, torch.nn.Parameter)  # no subclass, which may hold its data elsewhere
        and tensor.numel() > 0
    )


class Memory:
    """Gives out tensors with anything in them; `clear()` lets go of what is kept."""

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[Any]]] = {}  # bytes -> blocks

    def empty(self, entries: int, dtype: torch.dtype) -> Tensor:
        """(entries,)"""
        return self._empty((entries,), (1,), dtype)

    def empty_like(self, like: Tensor) -> Tensor:
        """Of the shape and dtype of `like`, and laid out as it is where that leaves no gaps; on any device."""
        if not in_cpu_memory(like):
            return torch.empty_like(like)
        return self._empty(like.shape, torch.empty_like(like, device="meta").stride(), like.dtype)

    def clear(self) -> None:
        """Let go of what nobody uses now; what is in use comes back all the same."""
        for blocks in self._free.values():
            blocks.clear()

    def _empty(self, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
        width = dtype.itemsize
        size = width * torch.Size(shape).numel()
        if size < LARGE:
            return torch.empty_strided(shape, strides, dtype=dtype)
        free = self._free.setdefault(size, [])
        block = free.pop() if free else torch.empty(size, dtype=torch.uint8).numpy()
        in_bytes = [width * stride for stride in strides]
        lent: NDArray[Any] = np.ndarray(shape, NUMPY[dtype], buffer=block.data, strides=in_bytes)
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.from_numpy(lent)  # its storage holds `lent`, and so does every view and array made of it

    def __getstate__(self) -> dict[str, Any]:
        return {"_free": {}}  # a copy begins with nothing
