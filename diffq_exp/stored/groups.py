"""Groups: a flat tensor of N entries, cut row-major into G groups of `group_size`, the last one maybe shorter.

Tensors with a value per group (G,) are combined here with tensors of entries (N,), without padding and without an
index per entry: the full groups are a (full, group_size) view, the tail is a slice of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CHUNK = 2**16  # entries of a chunk: as float32 a quarter of a MB


def group_count(entries: int, group_size: int) -> int:
    """Number of groups; `group_size` 0 means one group for the whole tensor."""
    return -(-entries // (group_size or entries))


def _split(flat: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """(N,) -> the full groups as a view (full, group_size), and the rest, (0 <= rest < group_size,)."""
    size = min(group_size or flat.numel(), flat.numel())
    full = flat.numel() // size
    return flat[: full * size].view(full, size), flat[full * size :]


def chunks_of(flat: Tensor, group_size: int) -> Iterator[tuple[slice, slice]]:
    """Cut (N,) entries between groups: (entries, their groups), as slices; group_size 0 has a single
    group.

    For chains of operations on a CPU, where a chunk stays in the cache. On other devices there is one chunk.
    """
    entries, size = flat.numel(), group_size or 1
    in_one = flat.device.type != "cpu" or torch.compiler.is_compiling()
    step = entries if in_one else max(CHUNK // size, 1) * size
    for start in range(0, entries, step):
        stop = min(start + step, entries)
        groups = slice(start // group_size, group_count(stop, group_size)) if group_size else slice(0, 1)
        yield slice(start, stop), groups


def _each_group_(operation: str) -> Callable[[Tensor, Tensor, int], Tensor]:
    """An in-place arithmetic of the entries of each group with their group's number; (N,), (G,) -> (N,)."""

    def apply(flat: Tensor, per_group: Tensor, group_size: int) -> Tensor:
        groups, tail = _split(flat, group_size)
        getattr(groups, operation)(per_group[: len(groups), None])
        if tail.numel():
            getattr(tail, operation)(per_group[-1])
        return flat

    return apply


add_groups_, mul_groups_, div_groups_ = (_each_group_(name) for name in ("add_", "mul_", "div_"))


def spread_groups(per_group: Tensor, entries: int, group_size: int) -> Tensor:
    """The number of each entry's group; (G,) -> (N,)."""
    size = min(group_size or entries, entries)
    full, tail = divmod(entries, size)
    spread = per_group[:full, None].expand(full, size).reshape(-1)
    return torch.cat([spread, per_group[-1].expand(tail)]) if tail else spread


def sum_groups(flat: Tensor, group_size: int) -> Tensor:
    """Sum within each group; (N,) -> (G,)."""
    groups, tail = _split(flat, group_size)
    sums = groups.sum(1)
    return torch.cat([sums, tail.sum().view(1)]) if tail.numel() else sums


def sum_entries(per_group: Tensor, entries: int, group_size: int) -> Tensor:
    """Sum over all entries of their group's value, (G,) -> (), without a value per entry."""
    size = min(group_size or entries, entries)
    missing = len(per_group) * size - entries  # entries that the last group lacks
    total = per_group.sum() * size
    return total - per_group[-1] * missing if missing else total
