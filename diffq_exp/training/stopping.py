"""Stopping between steps: signals become a flag, and a loss that is not finite a number on the device.

A cluster tells a job by SIGUSR2 that its time is up. Whoever started the run there (submitit) has a handler for it
that queues the job again and exits at once, so StopFlag takes its place, the run saves and lets go of all it holds,
and only then is the signal handed on. SIGTERM is left to such a starter: Slurm sends it along as a mere warning.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import torch
from torch import Tensor

from ..parallel.ranks import ALONE, Ranks

NEVER = 2**31 - 1
PREEMPTED = getattr(signal, "SIGUSR2", None)  # not on every system


class Interrupted(Exception):
    """The run had to stop, and has saved."""


class Diverged(Exception):
    """The loss, or a weight, stopped being finite."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"loss or weights are not finite from epoch {epoch}, step {step} on")
        self.epoch, self.step = epoch, step

    def __reduce__(self) -> tuple[object, ...]:
        return Diverged, (self.epoch, self.step)


class StopFlag:
    """Inside its `with`, SIGINT, SIGTERM and SIGUSR2 set `signal` instead of breaking in; a second Ctrl-C does.

    SIGTERM is left alone where other code handles it, and so is a signal that is ignored: SIGINT in the jobs of
    a sweep, say, whose launcher passes it on. Another rank may have received it, and told of it: `signal` then has
    it too, and `received` has not.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.received: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> StopFlag:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, PREEMPTED):
                if number is not None and not _is_left_alone(number):
                    self._before[number] = signal.signal(number, self._set)
        except ValueError:  # not in the main thread, which owns the signals
            pass
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.signal = number


def hand_on(code: int) -> None:
    """For after a run: give SIGUSR2, if the exit code says that it ended the run, to its earlier handler.

    That may queue the run again and exit, so nothing may be held any more. Without such a handler nothing happens.
    """
    if PREEMPTED is not None and code == 128 + PREEMPTED and _is_foreign(PREEMPTED):
        signal.raise_signal(PREEMPTED)


def _is_left_alone(number: int) -> bool:
    if signal.getsignal(number) is signal.SIG_IGN:
        return True
    return number == signal.SIGTERM and _is_foreign(number)


def _is_foreign(number: int) -> bool:
    """Whether a signal's handler is a function, and not a StopFlag's."""
    handler = signal.getsignal(number)
    return callable(handler) and not isinstance(getattr(handler, "__self__", None), StopFlag)


class FiniteWatch:
    """Remembers, on the device, the first step whose loss was not finite. Only reading it waits."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), NEVER, dtype=torch.int32, device=device)

    def see(self, loss: Tensor, step: int) -> None:
        at = torch.where(torch.isfinite(loss.detach()), NEVER, step).to(torch.int32)
        self._first = torch.minimum(self._first, at)

    def check(self, epoch: int, ranks: Ranks = ALONE) -> None:
        """Raises: Diverged, at the first step of any rank. Waits for the device."""
        (first,) = ranks.largest(-int(self._first))
        if (first := -first) != NEVER:
            raise Diverged(epoch, first)
