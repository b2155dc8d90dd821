"""Entry point: python -m diffq_exp.report [outputs/ ...] [--out DIR] [--size true] [--filter key=value] ...

Compares finished runs: tables on the terminal, and in OUTPUTS/report the picture, tables and page to keep. --list
and --prune look after the folders of the runs. Never imports torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .common.entry import MISTAKE, Parser, entry_point, program
from .common.printable import one_line
from .results.commit import git_state
from .results.discovery import Run, find_runs
from .results.filters import filtered
from .results.housekeeping import leftovers, list_table, prune
from .results.plots import Picture, check_font
from .results.publish import REPORT, print_table, say, show, write_report
from .results.summary import SIZES, check_key, make_report
from .results.sweep_records import SWEEPS, Sweep, compared_by, read_sweep, runs_of

REPORTED, NOTHING = 0, 1  # exit codes; and MISTAKE


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, 1 without any finished run, 2 with one line on standard error for a mistake."""
    try:
        return _main(_parser().parse_args(argv))
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return MISTAKE


def _main(args: argparse.Namespace) -> int:
    sweep, runs = _runs(args)
    if args.list:
        print_table(list_table(runs))
        return REPORTED
    if args.prune:
        left = [run for root in args.folders for run in leftovers(root)] if not (args.filter or sweep) else []
        prune([*runs, *left], git_state()[0], _ask, say)
        return REPORTED
    picture = Picture(args.figure_size, args.font, args.font_size, args.title)
    if args.font:
        check_font(args.font)
    for key in (*args.average_over, *(args.by or ())):
        check_key(key, runs)
    by = args.by or (sweep.by if sweep else compared_by(args.folders, runs))
    report = make_report(runs, sweep, args.size, args.average_over, by, args.sizes)
    show(report)
    out = args.out or args.folders[0] / REPORT / (sweep.name if sweep else "")
    for line in write_report(report, out, not args.no_wandb, picture):
        say(line)
    return REPORTED if report.problems else NOTHING


def _runs(args: argparse.Namespace) -> tuple[Sweep | None, list[Run]]:
    """The runs that the folders, --sweep and --filter choose."""
    runs = find_runs(args.folders)
    sweep = _sweep(args.folders, args.sweep) if args.sweep else None
    if sweep is not None:
        runs = runs_of(sweep, runs)
    for condition in args.filter:
        runs = filtered(runs, condition)
    return sweep, runs


def _sweep(roots: Sequence[Path], name: str) -> Sweep:
    holders = [root for root in roots if (root / SWEEPS / f"{name}.json").is_file()]
    return read_sweep((holders or roots)[0], name)


def _ask(question: str) -> bool:
    """No without a terminal: nothing is deleted by a script that happens to say y."""
    if not sys.stdin.isatty():
        say(f"{question}no (there is no terminal to ask)")
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=program("report"), description=__doc__.partition("\n\n")[2], allow_abbrev=False)
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
        help="runs that differ in these keys only are a point",
    )
    add("--by", nargs="+", metavar="KEY", help="keys that tell methods apart; quantizer, or those of the sweep")
    add("--sizes", nargs="+", type=_above_zero, metavar="MB", help="sizes for which the best score is given")
    add(
        "--filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="these runs only; bits=2,3: either; 'bits<4' 'size_mb.file<=0.1' 'quantizer!=none', in quotes",
    )
    add("--sweep", metavar="NAME", help=f"the jobs of OUTPUTS/{SWEEPS}/NAME.json only, and which are missing")
    figure = parser.add_argument_group("the picture, pareto.png, .svg and .pdf")
    figure.add_argument("--figure-size", nargs=2, type=_above_zero, metavar=("WIDTH", "HEIGHT"), help="in inches")
    figure.add_argument("--font", metavar="NAME", help="a family of fonts that is installed; DejaVu Sans")
    figure.add_argument("--font-size", type=_above_zero, default=9, metavar="POINTS", help="9")
    figure.add_argument("--title", metavar="TEXT", help="in place of the name of the problem")
    add("--no-wandb", action="store_true", help="do not log the report to W&B, as its runs are")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="only list every run, with its size on disk")
    instead.add_argument(
        "--prune", action="store_true", help="delete unfinished, failed and superseded runs; asks first"
    )
    return parser


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; a number above 0 is allowed")
    return value


if __name__ == "__main__":
    sys.exit(main())
