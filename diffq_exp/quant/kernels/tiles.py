"""How tensors are cut into tiles, which kernels process one by one, and lists of tensors into bundles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from ...stored.groups import group_count
from .cells import Array

TILE = 4096  # entries; a tile has whole groups, or is a part of a group
WHOLE = 2**62  # a group's size that no tensor reaches
Tile = np.dtype(
    [(name, "i8") for name in ("tensor", "start", "stop", "first", "last")]
)  # its entries start to stop, groups first to last


class Tiling:
    """The tiles of T tensors of so many entries, in groups of `group_size` (0: whole tensors).

    entries, groups: of each tensor, (T,); total: of all entries. tiles: (P,). first_of_tensor, first_of_group: the
    first tile of each, (T,), (G,). group_size: WHOLE instead of 0. split: whether tiles are parts of groups; else
    they have whole groups.
    """

    def __init__(self, entries: tuple[int, ...], group_size: int) -> None:
        self.entries, self.total = entries, sum(entries)
        self.groups = [group_count(count, group_size) for count in entries]
        self.group_size = min(group_size or WHOLE, WHOLE)
        self.split = self.group_size > TILE
        self.tiles = np.concatenate([self._cut(tensor, count) for tensor, count in enumerate(entries)])
        new_tensor, new_group = (np.diff(self.tiles[name], prepend=-1) != 0 for name in ("tensor", "first"))
        self.first_of_tensor: Array = np.flatnonzero(new_tensor)
        self.first_of_group: Array = np.flatnonzero(new_tensor | new_group)

    def _cut(self, tensor: int, entries: int) -> Array:
        """The tiles of one tensor."""
        if self.split:
            ends = [min(start + self.group_size, entries) for start in range(0, entries, self.group_size)]
            starts = [np.arange(group * self.group_size, end, TILE) for group, end in enumerate(ends)]
            group_of = np.repeat(np.arange(len(ends)), [len(tiles) for tiles in starts])
            start = np.concatenate(starts)
            stop = np.minimum(start + TILE, np.array(ends)[group_of])
            first, last = group_of, group_of + 1
        else:
            step = TILE // self.group_size * self.group_size
            start = np.arange(0, entries, step)
            stop = np.minimum(start + step, entries)
            first, last = start // self.group_size, -(-stop // self.group_size)
        tiles = np.zeros(len(start), Tile)
        for name, value in {"tensor": tensor, "start": start, "stop": stop, "first": first, "last": last}.items():
            tiles[name] = value
        return tiles


tiling_of = lru_cache(maxsize=4096)(Tiling)  # the same object each time: caches elsewhere have it as their key


@lru_cache(maxsize=256)
def group_sizes(entries: tuple[int, ...], group_size: int) -> Array:
    """How many entries the groups of each tensor have, and the last one, float32 (2, T)."""
    count = np.array(entries)
    size = np.full_like(count, min(group_size, WHOLE)) if group_size else count
    groups = [group_count(number, group_size) for number in entries]
    return np.stack([size, count - size * (np.array(groups) - 1)]).astype(np.float32)


def bundle_slices(tensors: Sequence[Tensor], most: int) -> Iterator[slice]:
    """Cut a list of tensors into bundles of neighbours with at most so many entries; a larger tensor is alone."""
    first, entries = 0, 0
    for index, tensor in enumerate(tensors):
        if index > first and entries + tensor.numel() > most:
            yield slice(first, index)
            first, entries = index, 0
        entries += tensor.numel()
    if tensors:
        yield slice(first, len(tensors))
