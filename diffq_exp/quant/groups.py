"""Groups: a flat tensor of N entries, cut row-major into G groups of `group_size`, the last one maybe shorter.

Everything that is said per group ((G,) tensors) meets the entries ((N,) tensors) here, without padding and
without an index per entry: the full groups are a (full, group_size) view, the tail a slice of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_count(entries: int, group_size: int) -> int:
    """Number of groups; `group_size` 0 means one group for the whole tensor."""
    return -(-entries // (group_size or entries))


def _split(flat: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """(N,) -> the full groups as a view (full, group_size), and the rest, (0 <= rest < group_size,)."""
    size = group_size or flat.numel()
    full = flat.numel() // size
    return flat[: full * size].view(full, size), flat[full * size :]


def mul_groups_(flat: Tensor, factors: Tensor, group_size: int) -> Tensor:
    """Multiply the entries of each group by its factor, in place; (N,), (G,) -> (N,)."""
    groups, tail = _split(flat, group_size)
    groups.mul_(factors[: len(groups), None])
    if tail.numel():
        tail.mul_(factors[-1])
    return flat


def sum_groups(flat: Tensor, group_size: int) -> Tensor:
    """Sum within each group; (N,) -> (G,)."""
    groups, tail = _split(flat, group_size)
    sums = groups.sum(1)
    return torch.cat([sums, tail.sum().view(1)]) if tail.numel() else sums


def spread_groups(per_group: Tensor, entries: int, group_size: int) -> Tensor:
    """Repeat each group's value for its entries; (G,) -> (N,)."""
    size = group_size or entries
    return per_group.repeat_interleave(size)[:entries]


def sum_entries(per_group: Tensor, entries: int, group_size: int) -> Tensor:
    """Sum over all entries of their group's value, as `spread_groups(...).sum()` gives, without spreading."""
    size = group_size or entries
    missing = len(per_group) * size - entries  # entries that the last group lacks
    total = per_group.sum() * size
    return total - per_group[-1] * missing if missing else total
