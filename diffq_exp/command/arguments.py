"""The arguments of `python -m diffq_exp.train`: overrides and Hydra's own options, in any order."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from ..common.entry import MISTAKE
from .paths import is_utf8, with_path_quoted


def parser() -> ArgumentParser:
    """Hydra's parser, whose errors are one line."""
    hydras: ArgumentParser = get_args_parser()
    hydras.error = _unknown_option  # type: ignore[method-assign]
    return hydras


def _unknown_option(message: str) -> NoReturn:
    keys = "a key is set by key=value, without dashes; " if message.startswith("unrecognized") else ""
    _error(f"{message}; {keys}--hydra-help lists the options")


def _error(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(MISTAKE)


def parse_arguments(argv: Sequence[str]) -> Namespace:
    """Raises: SystemExit(2) after one line on standard error."""
    for word in argv:
        if not is_utf8(word):
            _error(f"{ascii(word)[1:-1]}: is not UTF-8, in which configurations are written; rename what it names")
    hydras = parser()
    for word in argv:  # -penalty: not -p enalty
        if re.match(r"-\w{2}", word) and word.partition("=")[0] not in hydras._option_string_actions:
            _unknown_option(f"unrecognized arguments: {word}")
    arguments = hydras.parse_intermixed_args(list(argv))
    given = {
        "--run": arguments.run,
        "--multirun": arguments.multirun,
        "--cfg": arguments.cfg,
        "--info": arguments.info,
        "--shell-completion": arguments.shell_completion,
    }
    if len(several := [name for name, value in given.items() if value]) > 1:
        _unknown_option(f"{' and '.join(several)} exclude each other")
    for option in ("resolve", "package"):
        if getattr(arguments, option) and not arguments.cfg:
            _unknown_option(f"--{option} needs --cfg")
    if arguments.config_path:
        _error("--config-path: is not for this command; --config-dir DIR adds a folder, which comes before conf/")
    if arguments.experimental_rerun:
        _error(
            "--experimental-rerun: is not for this command; the command of a run is done again with restart=true"
        )
    arguments.overrides = [with_path_quoted(text) for text in arguments.overrides]
    return arguments
