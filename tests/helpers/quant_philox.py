"""The noise that compiled kernels must draw, by Python's integers; nothing here is compiled."""

import numpy as np
import torch

from diffq_exp.quant.kernels.cells import cells_of
from diffq_exp.quant.noise import NOISES

TILE = 4096
MASK = 2**32 - 1


def philox(counter, key):
    """Philox4x32-10 of four and two 32-bit numbers."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        one, other = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = other >> 32 ^ b ^ k0, other & MASK, one >> 32 ^ d ^ k1, one & MASK
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return a, b, c, d


def tile_lengths(entries, group_size):
    """Whole groups as many as go into TILE entries; of larger groups, parts."""
    if 0 < group_size <= TILE:
        step = TILE // group_size * group_size
        return [min(step, entries - start) for start in range(0, entries, step)]
    ends = (
        [min(start + group_size, entries) for start in range(0, entries, group_size)] if group_size else [entries]
    )
    groups = np.diff([0, *ends])
    return [min(TILE, group - start) for group in groups for start in range(0, group, TILE)]


def noise_after_seed(seed, entries, group_size, noise, rank=0):
    """The eps of tensors of so many `entries` in the first forward after torch.manual_seed(seed), float64 (N,)."""
    torch.manual_seed(seed)
    key = int(torch.randint(2**63 - 1, (1,)))
    cells, drawn, number = cells_of(NOISES[noise]).astype(np.float64), [], 0
    for count in entries:
        parts = []
        for length in tile_lengths(count, group_size):
            blocks = -(-length // 8)
            words = np.array([philox((i, number, rank, 0), (key & MASK, key >> 32)) for i in range(blocks)])
            chosen = words.T.astype(np.uint32).reshape(-1).view(np.uint16)[:length]
            parts.append(cells[chosen])
            number += 1
        drawn.append(torch.from_numpy(np.concatenate(parts)))
    return drawn
