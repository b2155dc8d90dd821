"""Tells Weights & Biases about a run, and never stops, fails or slows the run for it.

W&B cannot append to a local segment (`wandb/offline-run-<time>-<id>`), and rows that its helper process still
buffers are lost when it is killed. But the rows of metrics.jsonl are few, small and complete, so they are replayed
into a new segment under the same id. A killed run goes on in this way, and a run goes offline in this way when the
server does not answer or the helper dies. Online, steps that the server has are not sent again.

Measured on 2 cores with wandb 0.31, offline: 0.3 s to import it, 0.4 s to start, 0.01 s to finish; log() takes
the caller 0.1 ms, and the thread behind it some 4 ms for 60 layers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..common.units import MB
from .limits import shortened
from .segment import Segment, bytes_on_disk
from .tracker import Row

_logger = logging.getLogger(__name__)

MODES = ("offline", "online", "disabled")
_OLD_NAMES = {"dryrun": "offline", "run": "online"}  # of modes; wandb still takes them
_LOCAL_SECONDS = 30.0  # for calls that need no server
_UPLOAD_MB_PER_SECOND = 4.0  # a slower server counts as if it did not answer


class NullTracker:
    """Tracks nothing, so that a run always has a tracker to call."""

    @property
    def url_or_dir(self) -> str | None:
        return None

    def start(self, folder: Path, run_id: str, name: str, config: Row, history: Sequence[Row]) -> None:
        pass

    def log(self, row: Row) -> None:
        pass

    def finish(self, result: Row | None, file: Path | None, exit_code: int) -> None:
        pass


class WandbTracker:
    """A W&B run. `mode`: see `resolve_mode`. `name` replaces the one given to start().

    `timeout_seconds`: how long start() and finish() each wait for the server; finish() adds the time to send
    the file at 4 MB/s. WANDB_BASE_URL and other variables of W&B hold where no argument says more; the key
    comes from WANDB_API_KEY or netrc and is never asked for. `system_metrics`: also the use of CPU, memory and GPU.
    """

    def __init__(
        self,
        project: str = "diffq_exp",
        entity: str | None = None,
        mode: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        name: str | None = None,
        job_type: str = "train",
        timeout_seconds: float = 10.0,
        system_metrics: bool = False,
    ) -> None:
        if mode is not None and mode not in MODES:
            raise ValueError(f"tracking.mode is {mode!r}; allowed: {', '.join(MODES)}, null for WANDB_MODE")
        if not timeout_seconds > 0:
            raise ValueError(f"tracking.timeout_seconds is {timeout_seconds}; it has to be above 0")
        self.mode, self.name, self.timeout_seconds = mode, name, timeout_seconds
        self.system_metrics = system_metrics
        self._init: dict[str, object] = {"project": project, "entity": entity, "group": group}
        self._init |= {"job_type": job_type, "tags": [str(tag) for tag in tags] or None}
        self._folder = Path()
        self._rows: list[dict[str, object]] = []  # flat
        self._segment: Segment | None = None
        self._where: str | None = None

    @property
    def url_or_dir(self) -> str | None:
        """Online the address of the run, offline the folder for `wandb sync`; None when untracked."""
        return self._where

    def start(self, folder: Path, run_id: str, name: str, config: Row, history: Sequence[Row]) -> None:
        """Begin, or go on after `history`, the rows so far. Writes to folder/wandb and nowhere else.

        `run_id` stays the same when a run goes on, and is new when it is done again.
        """
        mode = resolve_mode(self.mode, os.environ.get("WANDB_MODE"))
        if mode == "disabled":
            return
        self._folder, self._rows = Path(folder).absolute(), [flat(row) for row in history]
        self._init |= {"id": run_id, "name": self.name or shortened(name, "name"), "config": config}
        try:
            self._segment = self._open(mode)
        except Exception as error:
            self._segment = self._open_offline(f"W&B does not start {mode}", error)

    def log(self, row: Row) -> None:
        """One epoch; "epoch" is the step. Returns at once."""
        if self._segment is None:
            return
        self._rows.append(flat(row))
        self._segment.log(self._rows[-1])
        if self._segment.mode == "offline":
            self._drop_older(self._segment)

    def finish(self, result: Row | None, file: Path | None, exit_code: int, kind: str = "model") -> None:
        """Hand over summary and file, an artifact of this type, and end the helper process.

        A no-op without start(), or twice.
        """
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            self._close(segment, result, file, exit_code, kind)
        except Exception as error:
            segment = self._open_offline("W&B did not take the end of the run", error)
            with contextlib.suppress(Exception):
                if segment is not None:
                    self._close(segment, result, file, exit_code, kind)

    def _open(self, mode: str) -> Segment:
        """A segment that has all rows so far."""
        import wandb

        online = mode == "online"
        self._where = None
        self._folder.mkdir(parents=True, exist_ok=True)
        segment = Segment(wandb, mode, self.system_metrics)
        init = {**self._init, "resume": "allow" if online else None}
        segment.open(self._folder, init, self.timeout_seconds if online else _LOCAL_SECONDS)
        for row in self._rows:
            segment.log(row)
        self._where = segment.url or str(segment.folder)
        return segment

    def _open_offline(self, problem: str, error: Exception) -> Segment | None:
        reason = str(error).partition("\n")[0] or type(error).__name__
        try:
            segment = self._open("offline")
        except Exception as second:
            _logger.warning("%s (%s); the run goes on untracked (%s)", problem, reason, second)
            return None
        where = segment.folder
        _logger.warning("%s (%s); all of it goes to %s; upload: wandb sync %s", problem, reason, where, where)
        return segment

    def _close(self, segment: Segment, result: Row | None, file: Path | None, exit_code: int, kind: str) -> None:
        seconds = _LOCAL_SECONDS
        if segment.mode == "online":
            seconds = self.timeout_seconds + _megabytes(file) / _UPLOAD_MB_PER_SECOND
        segment.close(flat(result or {}), file, exit_code, seconds, kind)
        self._drop_older(segment, whole=True)

    def _drop_older(self, segment: Segment, whole: bool = False) -> None:
        """Delete the segments that this one replaces: it has all their rows, once these are on the disk."""
        with contextlib.suppress(OSError):
            for folder in segment.older():
                if whole or bytes_on_disk(folder) <= bytes_on_disk(segment.folder):
                    shutil.rmtree(folder, ignore_errors=True)


def resolve_mode(mode: str | None, environment: str | None) -> str:
    """One of MODES: `mode` (tracking.mode) if it is given, else `environment` (WANDB_MODE), else offline."""
    wanted = (environment or "offline").lower() if mode is None else mode
    wanted = _OLD_NAMES.get(wanted, wanted)
    if wanted not in MODES:
        _logger.warning("WANDB_MODE is %r; allowed: %s. Going on offline", wanted, ", ".join(MODES))
        return "offline"
    return wanted


def flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """{"size_mb": {"true": 1.5, "soft": None}} -> {"size_mb/true": 1.5}"""
    values: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values.update(flat(value, f"{prefix}{key}/"))
        elif value is not None:
            values[f"{prefix}{key}"] = value
    return values


def _megabytes(file: Path | None) -> float:
    return file.stat().st_size / MB if file is not None and file.is_file() else 0.0
