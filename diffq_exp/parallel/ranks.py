"""What a run asks the other processes of the same run. `Ranks` itself is a run of one process: nothing to ask.

Ranks agree in three ways. What only the first one may do or decide (files, times, the display) it does, and tells.
What all do alike but may fail in one (reading data, memory) stands in `agreeing`. What is summed, is summed. Each
of them is called by all ranks in the same order, so that none waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


class RankLost(RuntimeError):
    """Another rank of the run has ended, or has failed by itself; its reason is the message."""


class Ranks:
    """A run of one process."""

    rank, world = 0, 1
    device: torch.device | None = None  # of this rank; None: what the configuration says
    settled: BaseException | None = None  # the last error that all ranks know of

    @property
    def first(self) -> bool:
        """Whether this rank writes, tracks and displays."""
        return self.rank == 0

    def told(self, function: Callable[[], Value]) -> Value:
        """What `function` gives on the first rank, or the error that it raises there, on all of them."""
        return function()

    def every(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order."""
        return [value]

    def largest(self, *numbers: int) -> list[int]:
        """The largest of each number over the ranks."""
        return list(numbers)

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What is inside is done by all ranks; where it fails in one, all of them raise."""
        yield

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all ranks the tensors of the first one, in place."""

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """The mean of each tensor over the ranks, in place."""

    def cause(self, error: BaseException) -> BaseException:
        """What is behind an error: that of another rank, where an error says only that the connection is gone."""
        return error

    def failed(self, reason: str, lost: bool) -> bool:
        """Leave the reason why this rank ends early; -> whether it is for this rank to tell the user.

        lost: because another one has ended, so that the first one may have ended too.
        """
        return True


ALONE = Ranks()
