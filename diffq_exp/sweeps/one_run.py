"""One run in a process of its own, for commands that ask for one run after the other."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ..command.overrides import grid_overrides
from ..results.records import RunRecord, read_record

SIGNAL = 128  # + its number: the exit code of a process that a signal stopped
POLL = 1.0  # seconds between two looks at a run that may be stopped early


class Stopped(Exception):
    """A signal stopped the run, and is to stop the command; `code`: its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def start(overrides: list[str]) -> subprocess.Popen[bytes]:
    """`python -m diffq_exp.train` with these overrides; in a session of its own, so that no signal comes twice."""
    return subprocess.Popen([sys.executable, "-m", "diffq_exp.train", *overrides], start_new_session=True)


def do_run(
    overrides: list[str], folder: Path, stop_early: Callable[[], bool] | None = None
) -> tuple[int, RunRecord]:
    """Do a run, go on with it, or find it done; -> its exit code, and its record in `folder`.

    stop_early: asked each second; where it is true, the run saves and ends as interrupted.
    Raises: Stopped, once the run has saved.
    """
    told = False
    words = [*overrides, *grid_overrides({"hydra.run.dir": [str(folder)]})]  # it may have the time in its name
    with _handed_on(processes := []) as received:
        processes.append(process := start(words))
        for number in received:  # it came before there was a process
            process.send_signal(number)
        while True:
            try:
                code = process.wait(None if stop_early is None else POLL)
                break
            except subprocess.TimeoutExpired:
                if not told and stop_early is not None and stop_early():
                    process.terminate()
                    told = True
    code = code if code >= 0 else SIGNAL - code
    if received or (code > SIGNAL and not told):
        raise Stopped(code if code > SIGNAL else SIGNAL + received[0])
    return code, read_record(folder)


@contextmanager
def _handed_on(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Inside a `with`, signals that stop a command go to its runs; -> those that came."""
    received: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
