"""A report on the terminal and in files: tables, picture and page, and a run in W&B where its runs are tracked."""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path

from ..common.printable import one_line, printable
from ..common.terminal import RunConsole
from .discovery import find_runs
from .plots import PANELS, PICTURE, PICTURES, Picture, draw
from .summary import Report, make_report
from .sweep_records import read_sweep, runs_of
from .tables import Table, counts, problem_tables, rich_table, unfinished_table, write_tables

log = logging.getLogger("diffq_exp")
REPORT = "report"  # inside outputs/
_SHOWN = 10  # unfinished runs on the terminal
_WIDTH = 140  # of tables in a file or pipe


def report_sweep(outputs: Path, name: str) -> None:
    """Report a sweep at its end, in outputs/report/<name>. An error is logged and ends nothing."""
    try:
        sweep = read_sweep(outputs, name)
        report = make_report(runs_of(sweep, find_runs([outputs])), sweep, by=sweep.by)
        show(report)
        for line in write_report(report, outputs / REPORT / name):
            log.info(line)
    except Exception as error:
        log.warning(f"no report: {type(error).__name__}: {one_line(error)}")
        log.debug("where:", exc_info=error)


def write_report(report: Report, out: Path, wandb: bool = True, picture: Picture = PICTURE) -> list[str]:
    """Write the files of a report; -> lines that say where they are. wandb: also log it there, as its runs are.

    The files of an earlier report in `out` are replaced; other files stay. Raises: OSError; ValueError for a font.
    """
    from .page import write_page

    out.mkdir(parents=True, exist_ok=True)
    paths = write_tables(report, out)
    if report.problems:
        paths += draw(report, out, picture)
    else:
        for name in PICTURES:
            (out / name).unlink(missing_ok=True)
    write_page(report, out / "index.html")
    lines = [f"{out}/: index.html, {', '.join(path.name for path in paths)}"]
    if len(report.problems) > PANELS:
        lines.append(
            f"the picture shows {PANELS} of {len(report.problems)} problems; the tables and the page have all"
        )
    if wandb and report.problems:
        from .wandb_report import log_report

        lines += log_report(report, out)
    return lines


def show(report: Report) -> None:
    """The tables, and how many runs there are of what kind."""
    for problem in report.problems:
        for table in problem_tables(problem, report.size):
            print_table(table)
    if (unfinished := unfinished_table(report)) is not None:
        print_table(unfinished, _SHOWN)
    for line in report.left_out[:_SHOWN]:
        say(line)
    if (more := len(report.left_out) - _SHOWN) > 0:
        say(f"and {more} more that are left out")
    for line in report.warnings[:_SHOWN]:
        say(f"warning: {line}")
    if not report.problems:
        say(f"no finished run to report{f': {counts(report.others)}' if report.others else ''}")


def print_table(table: Table, most: int | None = None) -> None:
    _console().print(rich_table(table, most))


def say(line: str) -> None:
    _console().print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _console() -> RunConsole:
    """For the standard output of this moment; wide where that is no terminal, and content with ASCII."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return RunConsole(width=None if sys.stdout.isatty() else _WIDTH)
