"""Batches in groups, one for each optimizer step."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..data import Loader

Group = list[tuple[Tensor, Tensor]]


def steps_from(loader: Loader, epoch: int, first_batch: int, accumulate: int) -> Iterator[tuple[int, Group]]:
    """What is left of an epoch: the number of each optimizer step, from 1, and its batches."""
    group: Group = []
    step = first_batch // accumulate
    for batch in loader.epoch(epoch, first_batch=first_batch):
        group.append(batch)
        if len(group) == accumulate:
            step += 1
            yield step, group
            group = []
    if group:
        yield step + 1, group
