"""Entry point: python -m diffq_exp.train [key=value ...]

    command/check.py -> plan -> sweeps/launch.py
    a run:   Hydra's run_job -> runs/job.py -> runs/run.py -> runs/session.py -> training/trainer.py
    a sweep: Hydra's sweeper -> sweeps/sweep.py -> Hydra's launcher -> a process per run: Hydra's run_job -> ...

The check composes each configuration, and a run gets that same object. torch is imported by runs/job.py only, so
that a mistake is said at once.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from .common.entry import MISTAKE, entry_point

INTERRUPTED = 130  # exit code


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """Check, then run; -> exit code. 0 finished, 1 failed or diverged, 2 a mistake, 128+n stopped by a signal."""
    typed = sys.argv[1:] if argv is None else list(argv)
    try:
        return _help(typed) if {"--help", "-h"} & set(typed) else _main(typed)
    except KeyboardInterrupt:  # before the run handles signals by itself
        print("interrupted before the run began", file=sys.stderr)
        return INTERRUPTED


def _help(typed: list[str]) -> int:
    from .command.help import help_text

    parser = ArgumentParser(add_help=False, allow_abbrev=False)  # Hydra's takes longer than all of this
    parser.add_argument("--config-dir", "-cd", type=Path)
    config_dir = parser.parse_known_args(typed)[0].config_dir
    if config_dir is not None and not config_dir.is_dir():
        print(f"error: --config-dir {config_dir}: no such folder", file=sys.stderr)
        return MISTAKE
    print(help_text(config_dir))
    return 0


def _main(typed: list[str]) -> int:
    if typed[:1] in (["-sc"], ["--shell-completion"]):
        from .command.completion import OTHERS, answer

        if (text := answer(typed[1:], os.environ.get("COMP_LINE", ""))) is not None:
            print(text)
            return 0
        if typed[1:2] not in OTHERS:
            print("error: -sc: install=bash, or uninstall=bash, is allowed; also zsh and fish", file=sys.stderr)
            return MISTAKE
    from .command.arguments import parse_arguments
    from .command.check import check_arguments
    from .parallel.place import place_of

    arguments = parse_arguments(typed)
    if arguments.hydra_help or arguments.shell_completion:
        return _show(arguments)
    plan = check_arguments(arguments)
    place = place_of()
    for line in plan.errors if place.local_rank == 0 else []:  # of several ranks the first on each machine speaks
        print(f"error: {line}", file=sys.stderr)
    if plan.errors:
        return MISTAKE
    for line in plan.warnings if place.rank == 0 else []:
        print(f"warning: {line}", file=sys.stderr)
    if arguments.cfg or arguments.info:
        return _show(arguments)
    from .sweeps.launch import carry_out_plan  # a mistake is said without waiting for this

    return carry_out_plan(plan, typed)


def _show(arguments: Namespace) -> int:
    from .sweeps.launch import show

    return show(arguments)


if __name__ == "__main__":
    sys.exit(main())
