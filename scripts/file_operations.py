"""The operations of this process on the files below a folder: audit events of Python, and a fsync in its place.

An audit hook cannot be taken back, and slows all that Python does: a process has one for all `Operations`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

KILLED = 99  # exit code
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# event: where its path stands in its arguments, and the descriptor of the folder that this is relative to
EVENTS = {
    "os.rename": (0, 2),
    "os.remove": (0, 1),
    "os.mkdir": (0, 2),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
    "os.link": (0, 2),
    "os.symlink": (1, 2),
}


def end_process() -> None:
    os._exit(KILLED)


_active: list[Operations] = []  # those inside their `with`


@cache
def _listen() -> None:
    """Once in a process."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        for each in _active:
            each.heard(event, arguments)

    sys.addaudithook(heard)


class Operations:
    """Inside its `with`, `seen` is what this process did below `root` so far.

    Calls `kill` before operation `stop_at`, counted from 1.
    """

    def __init__(self, root: Path, stop_at: int | None = None, kill: Callable[[], None] = end_process) -> None:
        self.root, self.stop_at, self.kill, self.seen = str(root.resolve()), stop_at, kill, list[str]()
        self._fsync = os.fsync
        _listen()

    def __enter__(self) -> Operations:
        _active.append(self)
        os.fsync = self._sync
        return self

    def __exit__(self, *exc: Any) -> None:
        _active.remove(self)
        os.fsync = self._fsync

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit event."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes, os.PathLike)) and flags & WRITING:
                self._note("open", path)
        elif event in EVENTS:
            at, folder = EVENTS[event]
            self._note(event.removeprefix("os."), arguments[at], -1 if folder is None else arguments[folder])

    def _sync(self, file: Any) -> None:
        self._note("fsync", os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}"))
        self._fsync(file)

    def _note(self, what: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int):
            return  # an open file, whose opening was an operation already
        name = os.fsdecode(path)
        if folder >= 0:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        name = os.path.abspath(name)
        if not name.startswith(self.root + os.sep):
            return
        if len(self.seen) + 1 == self.stop_at:
            self.kill()
        self.seen.append(f"{what} {name.removeprefix(self.root + os.sep)}")
