"""The arguments of `python -m diffq_exp.train`: overrides and Hydra's own options, in any order."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

MISTAKE = 2  # exit code


def parser() -> ArgumentParser:
    """Hydra's parser, whose errors are one line."""
    hydras: ArgumentParser = get_args_parser()
    hydras.error = _error  # type: ignore[method-assign]
    return hydras


def _error(message: str) -> NoReturn:
    print(f"error: {message}; --hydra-help lists the options", file=sys.stderr)
    sys.exit(MISTAKE)


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """Raises: SystemExit(2) after one line on standard error."""
    arguments = parser().parse_intermixed_args(list(argv))
    given = {
        "--run": arguments.run,
        "--multirun": arguments.multirun,
        "--cfg": arguments.cfg,
        "--info": arguments.info,
        "--shell-completion": arguments.shell_completion,
    }
    if len(several := [name for name, value in given.items() if value]) > 1:
        _error(f"{' and '.join(several)} exclude each other")
    if arguments.resolve and not arguments.cfg:
        _error("--resolve needs --cfg")
    return arguments
