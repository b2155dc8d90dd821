"""Stopping between steps: signals become a flag, and a loss that is not finite a number on the device."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
from torch import Tensor

NEVER = 2**31 - 1


class Interrupted(Exception):
    """The run was asked to stop, and has saved."""


class Diverged(Exception):
    """The loss, or a weight, stopped being finite."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"loss or weights are not finite from epoch {epoch}, step {step} on")
        self.epoch, self.step = epoch, step


class StopFlag:
    """Inside its `with`, SIGINT and SIGTERM set `signal` instead of breaking in; a second Ctrl-C breaks in."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._set)
        except ValueError:  # not in the main thread: whoever owns the signals decides
            pass
        return self

    def __exit__(self, *exc: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


class FiniteWatch:
    """Remembers, on the device, the first step whose loss was not finite; reading it is what waits."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), NEVER, dtype=torch.int32, device=device)

    def see(self, loss: Tensor, step: int) -> None:
        at = torch.where(torch.isfinite(loss.detach()), NEVER, step).to(torch.int32)
        self._first = torch.minimum(self._first, at)

    def check(self, epoch: int) -> None:
        """Raises: Diverged. Waits for the device."""
        first = int(self._first)
        if first != NEVER:
            raise Diverged(epoch, first)
