"""How a sweep is stopped: its own signals become a flag, and go on to the processes of its jobs."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("diffq_exp")


class Signals:
    """Inside its `with`, SIGINT and SIGTERM ask the jobs that run to save and end; a second one kills them."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._told: set[int | None] = set()

    def __enter__(self) -> Signals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script
                    self._before[number] = signal.signal(number, self._set)
        except ValueError:  # not in the main thread
            pass
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            for process in multiprocessing.active_children():
                process.kill()
        self.signal = number

    def pass_on(self) -> None:
        """Tell each process once that it has to stop: those too that were just being started."""
        if not self._told:
            log.warning("stopping: the jobs that run save and end; the same signal again kills them")
        for process in multiprocessing.active_children():
            if process.pid not in self._told:
                self._told.add(process.pid)
                process.terminate()
