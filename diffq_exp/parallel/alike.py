"""What has to be the same on all ranks before their first step, told by one line on each of them."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Protocol

from .ranks import Ranks


class Store(Protocol):
    """A store of torch.distributed, whose `get` waits until another rank has set the key."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...


def check_commands(ranks: Ranks, signature: str, restart: bool, words: Sequence[str]) -> None:
    """Raises: ValueError where the ranks are asked for different runs. words: the overrides of this rank.

    Overrides that are no part of a run, as num_workers, may differ.
    """
    (first, _, typed), *others = ranks.every(((signature, restart), platform.node(), list(words)))
    for rank, (other, host, words) in enumerate(others, start=1):
        if other != first:
            raise ValueError(
                f"the command must be equal on all ranks; rank {rank} ({host}) has {_beside(words, typed)} "
                f"(signature {other[0]}), rank 0 {_beside(typed, words)} (signature {first[0]})"
            )


def _beside(words: Sequence[str], others: Sequence[str]) -> str:
    return " ".join(word for word in words if word not in others) or "nothing more"


def check_starts(store: Store, rank: int, world: int, device: str, mistake: str | None) -> None:
    """Compare before the group is made, so that no rank waits for one that has refused.

    device: its type. mistake: what this rank has found wrong. Raises: ValueError, on all ranks.
    """
    store.set(f"start of {rank}", json.dumps([device, mistake, platform.node()]))
    starts = [json.loads(store.get(f"start of {other}")) for other in range(world)]
    store.set(f"seen by {rank}", "")
    if rank == 0:  # it may be the one that serves the store
        for other in range(world):
            store.get(f"seen by {other}")
    if (error := _mistake([(text, host) for _, text, host in starts])) is not None:
        raise ValueError(error)
    if (error := devices_error([kind for kind, _, _ in starts])) is not None:
        raise ValueError(error)


def _mistake(found: Sequence[tuple[str | None, str]]) -> str | None:
    """The mistake of the first rank that has one, which is named where the others have not the same."""
    first = next(((rank, text, host) for rank, (text, host) in enumerate(found) if text is not None), None)
    if first is None:
        return None
    rank, text, host = first
    return text if all(other == text for other, _ in found) else f"rank {rank} ({host}): {text}"


def devices_error(kinds: Sequence[str]) -> str | None:
    """Why ranks cannot compute on these kinds of devices together; None where they can."""
    other = next((rank for rank, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is None:
        return None
    return f"rank 0 computes on {kinds[0]}, rank {other} on {kinds[other]}; device=cpu puts all ranks on the CPU"
