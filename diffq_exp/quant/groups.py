"""Groups: a flat tensor of N entries, cut row-major into G groups of `group_size`, the last one maybe shorter.

Everything that is said per group ((G,) tensors) meets the entries ((N,) tensors) here, without padding and
without an index per entry: the full groups are a (full, group_size) view, the tail a slice of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE = 2**16  # entries of a piece: as float32 a quarter of a MB
IN_A_ROW = 2**9  # entries of a group; larger ones are worth a call each


def group_count(entries: int, group_size: int) -> int:
    """Number of groups; `group_size` 0 means one group for the whole tensor."""
    return -(-entries // (group_size or entries))


def _split(flat: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """(N,) -> the full groups as a view (full, group_size), and the rest, (0 <= rest < group_size,)."""
    size = group_size or flat.numel()
    full = flat.numel() // size
    return flat[: full * size].view(full, size), flat[full * size :]


def pieces_of(flat: Tensor, group_size: int) -> Iterator[tuple[slice, slice]]:
    """Cut (N,) entries between groups: (entries, their groups), as slices; group_size 0 has its one group in all.

    For chains of operations on a CPU, where a piece then stays in the cache; what is elsewhere is one piece.
    """
    entries, size = flat.numel(), group_size or 1
    in_one = flat.device.type != "cpu" or torch.compiler.is_compiling()
    step = entries if in_one else max(PIECE // size, 1) * size
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


def scaled_groups(flat: Tensor, per_group: Tensor, group_size: int) -> Tensor:
    """The entries of each group times its number; (N,), (G,) -> (N,), a new tensor."""
    groups, tail = _split(flat, group_size)
    scaled = (groups * per_group[: len(groups), None]).view(-1)
    return torch.cat([scaled, tail * per_group[-1]]) if tail.numel() else scaled


def add_scaled_groups(flat: Tensor, other: Tensor, per_group: Tensor, group_size: int, out: Tensor) -> Tensor:
    """flat + other * the number of the entry's group, in one go; (N,), (N,), (G,) -> `out` (N,)."""
    (groups, tail), (others, other_tail), (result, end) = (_split(one, group_size) for one in (flat, other, out))
    torch.addcmul(groups, others, per_group[: len(groups), None], out=result)
    if tail.numel():
        torch.addcmul(tail, other_tail, per_group[-1], out=end)
    return out


def sum_groups(flat: Tensor, group_size: int) -> Tensor:
    """Sum within each group; (N,) -> (G,)."""
    groups, tail = _split(flat, group_size)
    sums = groups.sum(1)
    return torch.cat([sums, tail.sum().view(1)]) if tail.numel() else sums


def dot_groups(one: Tensor, other: Tensor, group_size: int, out: Tensor) -> Tensor:
    """Sums within each group of the products; (N,), (N,) -> `out` (G,). Without a tensor of all products."""
    if group_size == 1:
        return torch.mul(one, other, out=out)
    pairs = zip(_split(one, group_size), _split(other, group_size), strict=True)
    (groups, others), (tail, other_tail) = pairs
    count, size = groups.shape
    if size <= IN_A_ROW:  # this form of bmm, with `out`, is none that autocast would do in bfloat16
        torch.bmm(groups.view(count, 1, size), others.view(count, size, 1), out=out[:count].view(count, 1, 1))
    else:
        for place in range(count):
            torch.dot(groups[place], others[place], out=out[place])
    if tail.numel():
        torch.dot(tail, other_tail, out=out[-1])
    return out


def sum_entries(per_group: Tensor, entries: int, group_size: int) -> Tensor:
    """Sum over all entries of their group's value, (G,) -> (), without a value per entry."""
    size = group_size or entries
    missing = len(per_group) * size - entries  # entries that the last group lacks
    total = per_group.sum() * size
    return total - per_group[-1] * missing if missing else total
