"""What stands around every entry point: UTF-8, a reader that stops reading, and the name it was called by."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import NoReturn, Protocol

MISTAKE = 2  # exit code


class Main(Protocol):
    """-> exit code. argv: what stands after the command; None: what was typed."""

    def __call__(self, argv: Sequence[str] | None = None) -> int: ...


class Parser(ArgumentParser):
    """A mistake is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message}; --help lists what is allowed\n")


def entry_point(main: Main) -> Main:
    """Decorate a `main(argv)`: without argv it reads the command line, as UTF-8, and may be piped to `head`."""

    @wraps(main)
    def whole(argv: Sequence[str] | None = None) -> int:
        if argv is None:
            _in_utf8()
            _find_modules_here()
        try:
            try:
                return main(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            silence_output()
            return 0

    return whole


def silence_output() -> None:
    """Throw away what is still to be printed: nobody reads it any more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program(name: str) -> str:
    """How an entry point was called: as `diffq-NAME`, or by Python."""
    script = f"diffq-{name}"
    return script if Path(sys.argv[0]).stem == script else f"python -m diffq_exp.{name}"


def _find_modules_here() -> None:
    """Let a script find the user's modules in the current folder, as `python -m` does."""
    if (
        Path(sys.argv[0]).stem.startswith("diffq-")
        and not getattr(sys.flags, "safe_path", False)
        and os.getcwd() not in sys.path
    ):
        sys.path.insert(0, os.getcwd())


def _in_utf8() -> None:
    """Where Python takes every path for ASCII (an old C locale), start it anew with UTF-8."""
    if sys.getfilesystemencoding() == "ascii":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
