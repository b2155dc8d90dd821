"""How tensors are cut into pieces for kernels (cpu/kernels.py, cuda/kernels.py)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .draw import Array
from .groups import group_count

PIECE = 4096  # entries; a piece has whole groups, or is a part of one
WHOLE = 2**62  # a group's size that no tensor reaches
Piece = np.dtype([(name, "i8") for name in ("tensor", "start", "stop", "first", "last")])  # entries, groups


class Plan:
    """The pieces of T tensors of so many entries, in groups of `group_size` (0: whole tensors); see `plan_of`.

    counts, groups: the entries and the groups of each tensor, (T,); entries: of all. pieces: (P,); tensors: the
    first piece of each tensor, (T,). split: whether pieces are parts of groups, else they have whole ones; parts:
    the first piece of each group, (G,), if split.
    """

    def __init__(self, entries: tuple[int, ...], group_size: int) -> None:
        self.counts, self.entries = entries, sum(entries)
        self.size = min(group_size or WHOLE, WHOLE)
        self.split = self.size > PIECE
        self.groups = [group_count(count, group_size) for count in entries]
        cuts = [self._cut(tensor, count) for tensor, count in enumerate(entries)]
        self.pieces = np.concatenate(cuts)
        counts = [len(one) for one in cuts]
        self.tensors: Array = np.cumsum(counts) - counts
        new = [np.diff(self.pieces[name], prepend=-1) != 0 for name in ("tensor", "first")]
        self.parts = np.flatnonzero(new[0] | new[1])

    def _cut(self, tensor: int, entries: int) -> Array:
        """The pieces of one tensor."""
        if self.split:
            ends = [min(start + self.size, entries) for start in range(0, entries, self.size)]
            starts = [np.arange(group * self.size, end, PIECE) for group, end in enumerate(ends)]
            of = np.repeat(np.arange(len(ends)), [len(one) for one in starts])
            start = np.concatenate(starts)
            stop = np.minimum(start + PIECE, np.array(ends)[of])
            first, last = of, of + 1
        else:
            step = PIECE // self.size * self.size
            start = np.arange(0, entries, step)
            stop = np.minimum(start + step, entries)
            first, last = start // self.size, -(-stop // self.size)
        pieces = np.zeros(len(start), Piece)
        for name, value in {"tensor": tensor, "start": start, "stop": stop, "first": first, "last": last}.items():
            pieces[name] = value
        return pieces


plan_of = lru_cache(maxsize=4096)(Plan)


@lru_cache(maxsize=256)
def group_sizes(entries: tuple[int, ...], group_size: int) -> Array:
    """How many entries the groups of each tensor have, and the last one, float32 (2, T)."""
    count = np.array(entries)
    size = np.full_like(count, min(group_size, WHOLE)) if group_size else count
    groups = [group_count(one, group_size) for one in entries]
    return np.stack([size, count - size * (np.array(groups) - 1)]).astype(np.float32)
