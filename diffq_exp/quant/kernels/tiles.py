"""How tensors are cut into pieces for kernels (cpu/kernels.py, cuda/kernels.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from ...stored.groups import group_count
from ..noise import Array

PIECE = 4096  # entries; a piece has whole groups, or is a part of one
WHOLE = 2**62  # a group's size that no tensor reaches
Piece = np.dtype(
    [(name, "i8") for name in ("tensor", "start", "stop", "first", "last")]
)  # its entries start to stop, groups first to last


class Plan:
    """The pieces of T tensors of so many entries, in groups of `group_size` (0: whole tensors).

    entries, groups: of each tensor, (T,); total: of all entries. pieces: (P,). first_of_tensor, first_of_group: the
    first piece of each, (T,), (G,). group_size: 0 became WHOLE. split: whether pieces are parts of groups, else
    they have whole ones.
    """

    def __init__(self, entries: tuple[int, ...], group_size: int) -> None:
        self.entries, self.total = entries, sum(entries)
        self.groups = [group_count(count, group_size) for count in entries]
        self.group_size = min(group_size or WHOLE, WHOLE)
        self.split = self.group_size > PIECE
        self.pieces = np.concatenate([self._cut(tensor, count) for tensor, count in enumerate(entries)])
        new_tensor, new_group = (np.diff(self.pieces[name], prepend=-1) != 0 for name in ("tensor", "first"))
        self.first_of_tensor: Array = np.flatnonzero(new_tensor)
        self.first_of_group: Array = np.flatnonzero(new_tensor | new_group)

    def _cut(self, tensor: int, entries: int) -> Array:
        """The pieces of one tensor."""
        if self.split:
            ends = [min(start + self.group_size, entries) for start in range(0, entries, self.group_size)]
            starts = [np.arange(group * self.group_size, end, PIECE) for group, end in enumerate(ends)]
            of = np.repeat(np.arange(len(ends)), [len(one) for one in starts])
            start = np.concatenate(starts)
            stop = np.minimum(start + PIECE, np.array(ends)[of])
            first, last = of, of + 1
        else:
            step = PIECE // self.group_size * self.group_size
            start = np.arange(0, entries, step)
            stop = np.minimum(start + step, entries)
            first, last = start // self.group_size, -(-stop // self.group_size)
        pieces = np.zeros(len(start), Piece)
        for name, value in {"tensor": tensor, "start": start, "stop": stop, "first": first, "last": last}.items():
            pieces[name] = value
        return pieces


plan_of = lru_cache(maxsize=4096)(Plan)  # one for each, and what is kept for it elsewhere is found by it


@lru_cache(maxsize=256)
def group_sizes(entries: tuple[int, ...], group_size: int) -> Array:
    """How many entries the groups of each tensor have, and the last one, float32 (2, T)."""
    count = np.array(entries)
    size = np.full_like(count, min(group_size, WHOLE)) if group_size else count
    groups = [group_count(one, group_size) for one in entries]
    return np.stack([size, count - size * (np.array(groups) - 1)]).astype(np.float32)


def together(tensors: Sequence[Tensor], most: int) -> Iterator[slice]:
    """Cut a list of tensors into neighbours of at most so many entries in all; a larger one is alone."""
    first, entries = 0, 0
    for place, one in enumerate(tensors):
        if place > first and entries + one.numel() > most:
            yield slice(first, place)
            first, entries = place, 0
        entries += one.numel()
    if tensors:
        yield slice(first, len(tensors))
