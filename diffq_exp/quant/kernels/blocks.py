"""How weights are cut into tiles of whole blocks. A block is the entries of a row that are in the same column.

coded_bits.py calls it a kernel, as convolutions do; here a kernel is a compiled loop.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .cells import Array
from .tiles import TILE, Tiling, tiling_of

Shape = tuple[int, int, int]  # rows, columns, places in a block


class Blocks:
    """The tiles of T weights of these shapes.

    tiles: (P,); their first and last count blocks or, where blocks are larger than a tile, parts of them. parts: of
    a block, (T,). total, first_of_tensor: see Tiling. of_blocks: the tiling of the blocks.
    """

    def __init__(self, shapes: tuple[Shape, ...]) -> None:
        self.shapes = shapes
        self.entries = [rows * columns * places for rows, columns, places in shapes]
        self.total = sum(self.entries)
        self.parts = [-(-places // TILE) for _, _, places in shapes]
        self.tiles = np.concatenate([self._cut(tensor) for tensor in range(len(shapes))])
        self.first_of_tensor: Array = np.flatnonzero(np.diff(self.tiles["tensor"], prepend=-1))
        self.of_blocks = tiling_of(tuple(rows * columns for rows, columns, _ in shapes), 1)

    def _cut(self, tensor: int) -> Array:
        """The tiles of one tensor."""
        tiles = Tiling((self.entries[tensor],), self.shapes[tensor][2]).tiles
        tiles["tensor"] = tensor
        if self.parts[tensor] > 1:
            tiles["first"] = np.arange(len(tiles))
            tiles["last"] = tiles["first"] + 1
        return tiles


blocks_of = lru_cache(maxsize=1024)(Blocks)
