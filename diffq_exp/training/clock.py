"""How long a run has computed, over all of its processes."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds of this process, on top of those that earlier processes of the run took."""

    def __init__(self, before: float = 0.0) -> None:
        self.before, self._started = before, time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._started

    def reached(self, before: float) -> None:
        """Earlier processes took this long by a checkpoint: one that is killed cannot say so in the record."""
        self.before = max(self.before, before)
