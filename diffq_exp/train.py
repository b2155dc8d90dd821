"""Entry point: python -m diffq_exp.train [key=value ...]

The command line is checked before Hydra sees it (checks.py), and torch is imported only once it is right.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import hydra
from hydra._internal.utils import get_args_parser

from .command.schema import conf_dir, register
from .command.signature import register_resolver
from .runs.job import codes, job

PASSED_ON = ("--hydra-help", "--version", "--shell-completion", "-sc", "--info", "-i")


def main() -> int:
    """Check, then run; -> exit code. 0 finished, 1 failed or diverged, 2 a mistake, 128+n stopped by a signal."""
    try:
        return _main(sys.argv[1:])
    except KeyboardInterrupt:  # before the run had its own way of stopping
        print("interrupted before the run began", file=sys.stderr)
        return 130


def _main(words: list[str]) -> int:
    if "--help" in words or "-h" in words:
        from .command.help import help_text

        with suppress(BrokenPipeError):  # of --help | head
            print(help_text(), flush=True)
        return 0
    if not any(word.split("=")[0] in PASSED_ON for word in words):
        code = _checked(words)
        if code is not None:
            return code
    register()
    register_resolver()
    sys.argv[1:] = overrides_last(words)
    hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")(job)()
    return max(codes, default=0)


def _checked(words: list[str]) -> int | None:
    """Say what is wrong with a command line, or what it would do; -> exit code, None to go on."""
    from .command.check import check

    found = check(words)
    for line in found.faults:
        print(f"error: {line}", file=sys.stderr)
    if found.faults:
        return 2
    for line in found.warnings:
        print(f"warning: {line}", file=sys.stderr)
    from .sweeps.sweep import Sweep, planned, show_plan

    sweep = Sweep.of(found.jobs, words)
    if any(one.cfg.dry_run for one in sweep.jobs):
        show_plan(sweep)
        return 0
    planned[:] = [sweep]
    return None


def overrides_last(words: list[str]) -> list[str]:
    """The same command line with its options in front, where Hydra's parser wants them."""
    overrides = get_args_parser().parse_intermixed_args(words).overrides
    options = list(words)
    for override in overrides:
        options.remove(override)
    return [*options, *overrides]


if __name__ == "__main__":
    sys.exit(main())
