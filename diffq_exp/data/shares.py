"""The share of each batch that one of several processes computes: `share_of` gives the loader of such a share.

Batches stay those of the whole run, so that a configuration means the same on any number of processes. A loader
that knows how to read only its share says so by a method `share`; of any other, batches are cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from .base import Loader


@dataclass(frozen=True)
class Share:
    """That of process `rank` of `world`.

    least: so many examples a process gets, or none: batch norm cannot train on a single one.
    """

    rank: int = 0
    world: int = 1
    least: int = 1

    def cut(self, start: int, stop: int) -> tuple[int, int]:
        """Of the positions start to stop of a batch, those of this process; equal ones where there are none."""
        examples = stop - start
        used = min(self.world, max(examples // self.least, 1))
        if self.rank >= used:
            return stop, stop
        return start + self.rank * examples // used, start + (self.rank + 1) * examples // used


WHOLE = Share()


@runtime_checkable
class Shareable(Protocol):
    """A loader that reads no more than its share."""

    def share(self, share: Share) -> Loader:
        """The loader of this share of each batch; `len`, `examples` and `batch_size` are those of the whole."""
        ...


def share_of(loader: Loader, share: Share) -> Loader:
    """The loader of a share; a batch in which it has no example has length 0."""
    if share.world == 1:
        return loader
    return loader.share(share) if isinstance(loader, Shareable) else CutLoader(loader, share)


class CutLoader:
    """A share of the batches of any loader, which reads them whole."""

    def __init__(self, loader: Loader, share: Share) -> None:
        self.examples, self.batch_size = loader.examples, loader.batch_size
        self._loader, self._share = loader, share

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in self._loader.epoch(epoch, first_batch):
            start, stop = self._share.cut(0, len(inputs))
            yield inputs[start:stop], targets[start:stop]
