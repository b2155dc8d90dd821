"""The terminal and the log: what a run, a sweep and a report print goes through here.

A run writes through the log, so that its train.log has the same lines as the terminal.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rich.console import Console

from .entry import silence_output
from .printable import printable

log = logging.getLogger("diffq_exp")


class RunConsole(Console):
    """Goes on in silence when its output is read no more (a closed pipe)."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence_output()


console = RunConsole()


class ConsoleHandler(logging.Handler):
    """Prints the log as plain lines, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = "\n".join(map(printable, self.format(record).split("\n")))
        text = lines.encode(console.encoding, "replace").decode(console.encoding)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def log_to_console() -> None:
    """Print the log on the terminal, from INFO on; DEBUG goes to train.log only."""
    if not any(isinstance(handler, ConsoleHandler) for handler in log.handlers):
        log.addHandler(ConsoleHandler(logging.INFO))
    log.setLevel(logging.DEBUG)
    log.propagate = False


def log_to_file_only() -> None:
    """Write the log to train.log only, as a job in the background does."""
    log.setLevel(logging.DEBUG)
    log.propagate = False


class FileLog:
    """Inside its `with`, the log is written to a file too, with times."""

    def __init__(self, path: Path) -> None:
        self.handler = logging.FileHandler(path, encoding="utf-8", delay=True)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> FileLog:
        log.addHandler(self.handler)
        return self

    def __exit__(self, *exc: object) -> None:
        log.removeHandler(self.handler)
        self.handler.close()
