"""Ends the process of a job that has no end: it is told to save and to end, and killed if it does not."""

from __future__ import annotations

import logging
import multiprocessing
import time

GRACE_SECONDS = 60.0  # for saving, at most as long as a process had
log = logging.getLogger("diffq_exp")


class Deadlines:
    """minutes: that a process has; None: without end. reasons: of the processes that were late, by their names."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.reasons: dict[str, str] = {}
        self._began: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """A process of this name has begun."""
        self._began[name] = time.monotonic()
        self.reasons.pop(name, None)

    def look(self) -> None:
        """End the processes that are late. To be called again and again."""
        if self.minutes is None:
            return
        now, allowed = time.monotonic(), 60 * self.minutes
        for process in multiprocessing.active_children():
            late = now - self._began.get(process.name, now) - allowed
            if late > 0 and process.name not in self.reasons:
                self.reasons[process.name] = f"no end within hydra.launcher.timeout_minutes={self.minutes:g}"
                log.warning(f"{process.name}: {self.reasons[process.name]}; it is told to save and to end")
                process.terminate()
            elif late > min(GRACE_SECONDS, allowed):
                process.kill()
