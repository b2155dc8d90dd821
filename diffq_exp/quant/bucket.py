"""Tensors side by side: what is done to each of many small tensors is done once to all of them.

A bucket is T tensors, flattened row-major, one after the other: N entries in G groups. Below, (T,), (G,) and (N,)
are per tensor, group and entry. A large tensor is alone in its bucket. Buckets are bounded, so that in a backward
gradients become ready a bucket at a time, as distributed training wants them.

What needs numpy, since torch has no fast operation on segments of unequal length, is for a CPU's memory alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from .draw import Array
from .groups import add_scaled_groups, dot_groups, group_count
from .memory import Memory, in_cpu_memory

ALONE = 2**19  # entries, above which a tensor has a bucket of its own
MOST = 2**21  # entries of a bucket of several tensors
ROW = 256  # entries; extremes are looked for in the rows that have them
ROWS_AT_ONCE = 4096


def cut(tensors: Sequence[Tensor], others: Sequence[Tensor], shrink: int = 1) -> Iterator[slice]:
    """The buckets of a list of tensors: neighbours of the same dtype, whose `others` have the same dtype too.

    shrink: how many times smaller than usual they are, for less memory at a time.
    """
    first, entries, alone, most = 0, 0, ALONE // shrink, MOST // shrink
    kinds = [(one.dtype, other.dtype, one.numel() > alone) for one, other in zip(tensors, others, strict=True)]
    for place, (one, kind) in enumerate(zip(tensors, kinds, strict=True)):
        count, large = one.numel(), kind[-1]
        if place > first and (large or kind != kinds[place - 1] or entries + count > most):
            yield slice(first, place)
            first, entries = place, 0
        entries += count
    if tensors:
        yield slice(first, len(tensors))


@dataclass(frozen=True)
class Places:
    """Where the extremes of the tensors are. at: entry; of: which tensor's; share: of its gradient; (P,) each.

    The share of each of k equally high entries is 1 / k, of k equally low ones -1 / k. Constant tensors have none.
    """

    at: Tensor
    of: Tensor
    share: Tensor


@dataclass(frozen=True)
class Bucket:
    """The layout of some tensors, by their numbers of entries; see `bucket_of`."""

    entries: tuple[int, ...]
    group_size: int

    @property
    def alone(self) -> bool:
        """Whether it is one tensor."""
        return len(self.entries) == 1

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Number of groups of each tensor."""
        return tuple(group_count(entries, self.group_size) for entries in self.entries)

    @cached_property
    def _even(self) -> bool:
        """Whether groups have one size all through, but for a last one."""
        full = self.group_size > 0 and not any(entries % self.group_size for entries in self.entries)
        return full or self.alone

    def _lengths(self) -> Array:
        """Entries of each group, (G,); made anew each time, as it may be as large as the weights."""
        parts = []
        for entries, groups in zip(self.entries, self.groups, strict=True):
            part = np.full(groups, self.group_size or entries)
            part[-1] = entries - (groups - 1) * part[0]
            parts.append(part)
        return np.concatenate(parts)

    # ---- tensors and the bucket ---------------------------------------------------------------------------------

    def look(self, tensors: Sequence[Tensor]) -> Tensor:
        """-> (N,), or (G,) of what is per group; not to be written to, since one that is alone is not copied."""
        return tensors[0].reshape(-1) if self.alone else torch.cat(_flattened(tensors))

    def join(self, tensors: Sequence[Tensor], memory: Memory) -> Tensor:
        """-> (N,), a copy, in memory from there."""
        out = memory.empty(sum(self.entries), tensors[0].dtype)
        if not self.alone:
            return torch.cat(_flattened(tensors), out=out)
        out.view(tensors[0].shape).copy_(tensors[0])  # on all threads
        return out

    def shaped(self, flat: Tensor, shapes: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """(N,) -> the tensors, in its memory. No views: autograd keeps apart what is written to each."""
        entries = flat.numpy()
        for start, count, shape in zip(_starts(self.entries), self.entries, shapes, strict=True):
            yield torch.from_numpy(entries[start : start + count].reshape(shape))

    def split_groups(self, per_group: Tensor) -> Sequence[Tensor]:
        """(G,) -> the parts of the tensors, as views."""
        return torch.split(per_group, list(self.groups))

    def to_groups(self, per_tensor: Tensor) -> Tensor:
        """(T,) -> (G,), or a single value for all groups."""
        return per_tensor if self.alone else torch.from_numpy(per_tensor.numpy().repeat(self.groups))

    def sum_groups(self, per_group: Tensor) -> Tensor:
        """Sums over the groups of each tensor, (G,) -> (T,)."""
        if self.alone:
            return per_group.sum().view(1)
        return torch.from_numpy(np.add.reduceat(per_group.numpy(), _starts(self.groups)))

    # ---- groups and their entries -------------------------------------------------------------------------------

    def add_scaled(self, flat: Tensor, other: Tensor, per_group: Tensor, out: Tensor) -> Tensor:
        """flat + other * the number of the entry's group; (N,), (N,), (G,) -> `out` (N,), which may be `flat`."""
        if self._even:
            return add_scaled_groups(flat, other, per_group, self.group_size, out)
        per_entry = torch.from_numpy(per_group.numpy().repeat(self._lengths()))
        return torch.addcmul(flat, other, per_entry, out=out)

    def dot(self, one: Tensor, other: Tensor, out: Tensor) -> Tensor:
        """Sums within each group of the products, (N,), (N,) -> `out` (G,)."""
        if self._even:
            return dot_groups(one, other, self.group_size, out)
        np.add.reduceat((one * other).numpy(), _starts(self._lengths()), out=out.numpy())
        return out

    def maxima(self, flat: Tensor) -> Tensor:
        """The highest entry of each tensor, (T,); on any device."""
        if in_cpu_memory(flat) and not self.alone:
            return torch.from_numpy(np.maximum.reduceat(flat.numpy(), _starts(self.entries)))
        return torch.stack([one.amax() for one in torch.split(flat, list(self.entries))])

    # ---- extremes -----------------------------------------------------------------------------------------------

    def extremes(self, flat: Tensor) -> tuple[Tensor, Tensor, Places]:
        """The lowest and the highest entry of each tensor, (T,) each, and their places.

        Both are nan, and without a place, where a tensor has entries that are not numbers.
        """
        lows, highs = (self._of_rows(flat, side) for side in (np.minimum, np.maximum))
        low = np.minimum.reduceat(lows, self._first_rows)
        high = np.maximum.reduceat(highs, self._first_rows)
        sides = [
            self._places(flat.numpy(), ends, np.where(low < high, end, np.nan), sign)
            for ends, end, sign in ((lows, low, -1), (highs, high, 1))
        ]
        found = (torch.from_numpy(np.concatenate(both)) for both in zip(*sides, strict=True))
        return torch.from_numpy(low), torch.from_numpy(high), Places(*found)

    def _of_rows(self, flat: Tensor, side: np.ufunc) -> Array:
        """The extremes of all rows on one side."""
        if not self.alone:
            return side.reduceat(flat.numpy(), self._rows[0])
        full = len(flat) // ROW * ROW  # torch has all threads; aminmax of rows would take ten times as long
        rows, tail = flat[:full].view(-1, ROW), flat[full:].numpy()
        ends = (rows.amin(1) if side is np.minimum else rows.amax(1)).numpy()
        return np.append(ends, side.reduce(tail)) if len(tail) else ends

    @cached_property
    def _rows(self) -> tuple[Array, Array, Array]:
        """Pieces of at most ROW entries of one tensor: where they start and stop, and whose they are."""
        starts, counts = _starts(self.entries), [-(-entries // ROW) for entries in self.entries]
        of = np.arange(len(self.entries)).repeat(counts)
        begin = starts[of] + ROW * (np.arange(len(of)) - _starts(counts)[of])
        return begin, np.minimum(begin + ROW, (starts + self.entries)[of]), of

    @cached_property
    def _first_rows(self) -> Array:
        return np.searchsorted(self._rows[2], np.arange(len(self.entries)))

    def _places(self, flat: Array, ends: Array, end: Array, sign: int) -> tuple[Array, Array, Array]:
        """Places of the entries that are their tensor's `end`; ends: those of the rows."""
        begin, stop, of = self._rows
        hits = np.flatnonzero(ends == end[of])
        found_at, found_of = [hits[:0]], [hits[:0]]
        for first in range(0, len(hits), ROWS_AT_ONCE):
            rows = hits[first : first + ROWS_AT_ONCE]
            at = begin[rows, None] + np.arange(ROW)
            found = (flat.take(at, mode="clip") == end[of[rows], None]) & (at < stop[rows, None])
            found_at.append(at[found])
            found_of.append(of[rows].repeat(found.sum(1)))
        whose = np.concatenate(found_of)
        share = (sign / np.maximum(np.bincount(whose, minlength=len(self.entries)), 1)).astype(flat.dtype)
        return np.concatenate(found_at), whose, share[whose]


def _flattened(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one if one.dim() == 1 else one.reshape(-1) for one in tensors]


bucket_of = lru_cache(maxsize=4096)(Bucket)


def _starts(lengths: Sequence[int] | Array) -> Array:
    """Where segments of these lengths start."""
    return np.cumsum(lengths) - lengths
