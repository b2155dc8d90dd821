"""Entry point: python -m diffq_exp.report [outputs/ ...] [--out DIR] [--size true] [--filter key=value] ...

Reads what runs left and says which configurations are worth having: tables on the terminal, and in OUTPUTS/report
the picture, tables and page to keep. --list and --prune look after the folders themselves. Never imports torch.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from .common.terminal import RunConsole
from .results.commit import git_state
from .results.discovery import MISSING, SWEEPS, Run, Sweep, find_runs, read_sweep, read_value, runs_of
from .results.housekeeping import leftovers, list_table, prune
from .results.plots import PANELS, draw
from .results.points import shown
from .results.summary import SIZES, Report, check_key, make_report
from .results.tables import Table, counts, problem_tables, rich_table, unfinished_table, write_tables

log = logging.getLogger("diffq_exp")
REPORT = "report"  # inside outputs/
REPORTED, NOTHING, MISTAKE = 0, 1, 2  # exit codes
_SHOWN = 10  # unfinished runs on the terminal
_WIDTH = 140  # of tables in a file or pipe


def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, 1 without any finished run, 2 with one line on standard error for a mistake."""
    try:
        return _main(_parser().parse_args(argv))
    except (ValueError, OSError) as fault:
        print(f"error: {' '.join(str(fault).split())}", file=sys.stderr)
        return MISTAKE


def report_sweep(outputs: Path, name: str) -> None:
    """Report a sweep at its end, in outputs/report/<name>. Whatever goes wrong is told, and nothing else."""
    try:
        sweep = read_sweep(outputs, name)
        report = make_report(runs_of(sweep, find_runs([outputs])), sweep, by=sweep.by)
        _show(report)
        for line in write_report(report, outputs / REPORT / name):
            log.info(line)
    except Exception as fault:
        log.warning(f"no report: {type(fault).__name__}: {' '.join(str(fault).split())}")
        log.debug("where:", exc_info=fault)


def write_report(report: Report, out: Path, wandb: bool = True) -> list[str]:
    """Write everything that is kept of a report; -> lines that say where. wandb: and log it there, as its runs are.

    What an earlier report left in `out` is replaced; other files stay. Raises: OSError.
    """
    from .results.page import write_page

    out.mkdir(parents=True, exist_ok=True)
    paths = write_tables(report, out)
    if report.problems:
        paths += draw(report, out)
    else:
        (out / "pareto.png").unlink(missing_ok=True)
        (out / "pareto.svg").unlink(missing_ok=True)
    write_page(report, out / "index.html")
    lines = [f"{out}/: index.html, {', '.join(path.name for path in paths)}"]
    if len(report.problems) > PANELS:
        lines.append(
            f"pareto.png shows {PANELS} of {len(report.problems)} problems; the tables and the page have all"
        )
    if wandb and report.problems:
        from .results.wandb_report import log_report

        lines += log_report(report, out)
    return lines


def _main(args: argparse.Namespace) -> int:
    sweep, runs = _runs(args)
    if args.list:
        _print(list_table(runs))
        return REPORTED
    if args.prune:
        left = [run for root in args.folders for run in leftovers(root)] if not (args.filter or sweep) else []
        prune([*runs, *left], git_state()[0], _ask, _say)
        return REPORTED
    for key in (*args.average_over, *(args.by or ())):
        check_key(key, runs)
    by = args.by or (sweep.by if sweep else ("quantizer",))
    report = make_report(runs, sweep, args.size, args.average_over, by, args.sizes)
    _show(report)
    out = args.out or args.folders[0] / REPORT / (sweep.name if sweep else "")
    for line in write_report(report, out, not args.no_wandb):
        _say(line)
    return REPORTED if report.problems else NOTHING


def _runs(args: argparse.Namespace) -> tuple[Sweep | None, list[Run]]:
    """What the folders, --sweep and --filter choose."""
    runs = find_runs(args.folders)
    sweep = _sweep(args.folders, args.sweep) if args.sweep else None
    if sweep is not None:
        runs = runs_of(sweep, runs)
    for one in args.filter:
        runs = _filtered(runs, one)
    return sweep, runs


def _sweep(roots: Sequence[Path], name: str) -> Sweep:
    holders = [root for root in roots if (root / SWEEPS / f"{name}.json").is_file()]
    return read_sweep((holders or roots)[0], name)


def _filtered(runs: Sequence[Run], asked: str) -> list[Run]:
    """The runs with key=value, or one of several values: bits=2,3; and jobs that may have it."""
    key, equals, text = asked.partition("=")
    if not (key and equals):
        raise ValueError(f"--filter {asked}: key=value is allowed")
    check_key(key, runs)
    wanted = [read_value(one) for one in text.split(",")]
    if not any(run.value(key) in wanted for run in runs):
        there = {shown(value) for run in runs if (value := run.value(key)) is not None}
        raise ValueError(
            f"--filter {asked}: no run has it; of {key} there are {', '.join(sorted(there)) or 'none'}"
        )
    return [run for run in runs if run.value(key) in (wanted if run.status != MISSING else [*wanted, None])]


def _show(report: Report) -> None:
    """The tables, and how many runs there are of what kind."""
    for problem in report.problems:
        for table in problem_tables(problem, report.size):
            _print(table)
    if (unfinished := unfinished_table(report)) is not None:
        _print(unfinished, _SHOWN)
    for line in report.problems_with_reading[:_SHOWN]:
        _say(line)
    if (more := len(report.problems_with_reading) - _SHOWN) > 0:
        _say(f"and {more} more that are left out")
    if not report.problems:
        _say(f"no finished run to report{f': {counts(report.others)}' if report.others else ''}")


def _print(table: Table, most: int | None = None) -> None:
    _console().print(rich_table(table, most))


def _say(line: str) -> None:
    _console().print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> RunConsole:
    """For the standard output of this moment; wide where that is no terminal, and content with ASCII."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return RunConsole(width=None if sys.stdout.isatty() else _WIDTH)


def _ask(question: str) -> bool:
    """No without a terminal: nothing is deleted by a script that happens to say y."""
    if not sys.stdin.isatty():
        _say(f"{question}no (there is no terminal to ask)")
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


class _Parser(argparse.ArgumentParser):
    """A mistake is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"error: {message}; --help lists what is allowed\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m diffq_exp.report", description=__doc__.partition("\n\n")[2], allow_abbrev=False
    )
    add = parser.add_argument
    add("folders", nargs="*", type=Path, default=[Path("outputs")], help="where runs are; outputs without any")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where files are written; OUTPUTS/report, of a sweep OUTPUTS/report/NAME",
    )
    add("--size", choices=SIZES, default="file", help="bytes of the stored file, or true: the paper's formula")
    add(
        "--average-over",
        nargs="+",
        default=["seed"],
        metavar="KEY",
        help="runs that differ in these only are a point",
    )
    add("--by", nargs="+", metavar="KEY", help="keys that tell methods apart; quantizer, or what the sweep says")
    add("--sizes", nargs="+", type=_megabytes, metavar="MB", help="sizes at which the best accuracy is told")
    add(
        "--filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="these runs only; bits=2,3: either",
    )
    add("--sweep", metavar="NAME", help=f"the jobs of OUTPUTS/{SWEEPS}/NAME.json only, and which are missing")
    add("--no-wandb", action="store_true", help="do not log the report to W&B, as its runs are")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="only list every run, with its size on disk")
    instead.add_argument(
        "--prune", action="store_true", help="delete unfinished, failed and superseded runs; asks first"
    )
    return parser


def _megabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; a number of MB above 0 is allowed")
    return value


if __name__ == "__main__":
    sys.exit(main())
