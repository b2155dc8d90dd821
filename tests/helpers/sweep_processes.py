"""Sweeps as a user starts them, each the leader of a group of processes, which is killed at the end of its test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from helpers.run_configs import rows_of

from diffq_exp.common.files import read_json
from diffq_exp.results.run_files import RESULT

REPOSITORY = Path(__file__).parents[2]
SECONDS = 240  # for anything on a crowded machine


class Sweep:
    """`python -m diffq_exp.train -m` in a folder. report: without one it breaks, at once."""

    def __init__(self, folder: Path, *words: str, report: bool = False, **environment: str) -> None:
        self.folder = folder
        self.said = folder / f"said-{time.monotonic_ns()}.txt"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        search = [str(REPOSITORY)] if report else [str(_no_ink(folder)), str(REPOSITORY)]
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "diffq_exp.train", "-m", *words],
                cwd=folder,
                env={**kept, "PYTHONPATH": os.pathsep.join(search), **environment},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.said.read_text()

    def end(self) -> int:
        """-> exit code; nothing of the sweep may be left."""
        code = self.process.wait(SECONDS)
        wait_until(lambda: not self.group())
        return code

    def kill(self) -> None:
        """The whole group at once, as when a machine goes down."""
        for process in self.group():
            process.kill()
        self.process.wait(SECONDS)
        wait_until(lambda: not self.group())

    def group(self) -> list[psutil.Process]:
        """The processes of the sweep that are alive."""
        return [one for one in psutil.process_iter() if _group_of(one) == self.process.pid]

    def process_of(self, run: Path) -> psutil.Process:
        """The process that works on a run: its output goes to train.log there."""
        log = str(run / "train.log")
        (found,) = [one for one in self.group() if log in [file.path for file in one.open_files()]]
        return found

    def runs_with_rows(self, count: int) -> bool:
        """Whether two runs are at work, and have done so many epochs."""
        return sum(len(rows) >= count for rows in rows_by_run(self.folder).values()) >= 2


@contextmanager
def sweep(folder: Path, *words: str, **more: Any) -> Iterator[Sweep]:
    """Start a sweep; at the end nothing of it is left, however the test went."""
    started = Sweep(folder, *words, **more)
    try:
        yield started
    finally:
        started.kill()


def swept(folder: Path, *words: str, **more: Any) -> tuple[int, str]:
    """Carry out a sweep; -> exit code, and what it said."""
    with sweep(folder, *words, **more) as started:
        return started.end(), started.text


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in (folder / "outputs").glob(f"*/{RESULT}"))


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """result.json by the name of the run's folder."""
    return {run.name: read_json(run / RESULT) for run in runs(folder)}


def statuses(folder: Path) -> list[str]:
    return sorted(result["status"] for result in results(folder).values())


def rows_by_run(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {run.name: rows_of(run) for run in runs(folder) if (run / "metrics.jsonl").exists()}


def written(folder: Path, status: str) -> dict[str, int]:
    """When each result of a status was written."""
    return {name: (folder / "outputs" / name / RESULT).stat().st_mtime_ns
            for name, result in results(folder).items() if result["status"] == status}  # fmt: skip


def times_begun(folder: Path) -> dict[str, int]:
    """How often the first epoch of each run was done."""
    return {run.name: (run / "train.log").read_text().count(" epoch 1/") for run in runs(folder)}


def _no_ink(folder: Path) -> Path:
    """A folder in which matplotlib is one that breaks."""
    place = folder / "no_ink"
    place.mkdir(exist_ok=True)
    (place / "matplotlib.py").write_text("raise ImportError('no ink')\n")
    return place


def _group_of(process: psutil.Process) -> int | None:
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
