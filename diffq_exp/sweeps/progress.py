"""The display of a sweep: a line for each job that ended, and on terminals a progress bar."""

from __future__ import annotations

import logging
import time
from math import inf

from rich.progress import BarColumn, Progress, TextColumn

from ..common.terminal import console
from ..results.records import RunRecord

log = logging.getLogger("diffq_exp")


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class SweepDisplay:
    """jobs: how many there are to do; n_jobs of them at a time."""

    def __init__(self, jobs: int, n_jobs: int) -> None:
        self.jobs, self.n_jobs = jobs, n_jobs
        self.done, self.failed, self.running = 0, 0, 0
        self.began = time.monotonic()
        self.best: dict[str, RunRecord] = {}  # of each headline
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=jobs, text="")

    def __enter__(self) -> SweepDisplay:
        log.info(f"{self.jobs} jobs to do, {self.n_jobs} at a time; each logs to train.log in its folder")
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def started(self) -> None:
        self.running += 1
        self.refresh()

    def returned(self) -> None:
        """Another process is at work on the run of this job, which goes back to the queue."""
        self.running -= 1
        self.refresh()

    def ended(self, overrides: str, status: str, record: RunRecord, reason: str, ran: bool = True) -> None:
        """ran: False for a job that another process had done in the meantime."""
        self.running -= ran
        self.done += 1
        self.failed += status not in ("finished", "interrupted")
        parts = [f"[{self.done:>{len(str(self.jobs))}}/{self.jobs}]", f"{status:<8}", overrides]
        if status == "finished":
            parts += [_marks(record), duration(record.seconds or 0.0)]
            name = record.compared_by.name
            self.best[name] = max(self.best.get(name, record), record, key=_goodness)
        elif reason:
            parts.append(f": {reason}")
        (log.info if status == "finished" else log.error)("  ".join(part for part in parts if part))
        self.refresh()

    def refresh(self) -> None:
        best = "".join(f"  best {_marks(record)}" for record in self.best.values())
        left = f"  {duration(self._left())} left" if self.done else ""
        text = f"{self.running} running  {self.failed} failed{left}{best}"
        self._bar.update(self._task, completed=self.done, description=f"{self.done}/{self.jobs} jobs", text=text)

    def _left(self) -> float:
        """Seconds, if the other jobs go on at the pace of those that ended."""
        return (time.monotonic() - self.began) / self.done * (self.jobs - self.done)


def _marks(record: RunRecord) -> str:
    return f"{record.score or 0:.4f}  file {record.size_mb.get('file') or 0:.4f} MB"


def _goodness(record: RunRecord) -> tuple[float, float]:
    """The better headline is better, of equals the smaller network."""
    goodness = -inf if record.score is None else record.compared_by.goodness(record.score)
    return goodness, -(record.size_mb.get("file") or 0.0)
