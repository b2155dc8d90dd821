"""What a tracker hears of a run."""

from __future__ import annotations

from typing import Any

from ..tracking.tracker import Tracker
from .run_folder import RunFolder


class TrackerListener:
    """Hands a trainer's rows on to the tracker, and starts it with what the run is."""

    def __init__(self, tracker: Tracker, folder: RunFolder, config: dict[str, Any]) -> None:
        self.tracker, self.folder, self.config = tracker, folder, config

    def started(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        self.tracker.start(self.folder.path, run_id, self.folder.path.name, self.config, rows)

    def step(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        """Only epochs are tracked."""

    def epoch(self, row: dict[str, Any]) -> None:
        self.tracker.log(row)
