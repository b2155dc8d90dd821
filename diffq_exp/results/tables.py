"""The tables of a report: made once as text, and rendered for the terminal, Markdown and LaTeX; and runs.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.files import replacing
from ..common.printable import printable
from .discovery import Run
from .escapes import LONGEST, cell, md, md_code, tex
from .headline import Headline
from .looks import styles
from .plots import SIZE_LABEL
from .points import Point, shown
from .summary import Problem, Report, keys_that_vary

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

NONE = "-"
_MOST = 100  # unfinished runs that are listed in Markdown
_ALWAYS = ("dataset", "model", "quantizer", "seed")
_SIZES = {  # of result.json, in runs.csv after the scores
    "size_mb": ("file", "true", "soft", "float32"), "bits": ("mean", "min", "max"),
}  # fmt: skip
_PLAIN = (
    "target_mb",
    "target_met",
    "epochs",
    "seconds",
    "device",
    "git_commit",
    "git_dirty",
    "epoch",
    "step",
    "reason",
)


@dataclass(frozen=True)
class Table:
    """Text in rows. left: how many columns are aligned left; the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    note: str = ""


def problem_tables(problem: Problem, kind: str) -> list[Table]:
    """The tables of a problem: its methods, and the configurations on the front."""
    return [_methods(problem, kind), _front(problem)]


def unfinished_table(report: Report) -> Table | None:
    """The runs that failed, were killed, are missing or still running, with reasons; None without any."""
    rows = [[run.status, run.folder.name, run.reason or NONE, run.command] for run in report.others]
    title = f"Not finished: {counts(report.others)}"
    return Table(title, ("status", "folder", "reason", "command"), rows, left=4) if rows else None


def counts(runs: Iterable[Run]) -> str:
    """ "2 failed, 1 missing" """
    statuses = [run.status for run in runs]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(sorted(statuses)))


def megabytes(size: float | None) -> str:
    """Three digits: 0.0471, 0.270, 145."""
    return NONE if size is None else f"{size:.0f}" if size >= 99.95 else f"{size:#.3g}"


def score_text(point: Point | None) -> str:
    """ "99.17 ± 0.10", the spread only of several runs."""
    return NONE if point is None else point.headline.spread_text(point.score, point.score_std)


def markdown(table: Table, most: int | None = None) -> str:
    rows = [[md(cell) for cell in row] for row in table.rows[:most]]
    more = len(table.rows) - len(rows)
    lines = [f"**{md(table.title)}**", "", _pipes(map(md, table.header))]
    lines.append(_pipes(["---" if column < table.left else "---:" for column in range(len(table.header))]))
    lines += [_pipes(row) for row in rows]
    lines += ["", f"and {more} more: see runs.csv"] if more else []
    return "\n".join([*lines, "", *([md(table.note), ""] if table.note else [])])


def latex(table: Table) -> str:
    """A table of booktabs."""
    columns = "l" * table.left + "r" * (len(table.header) - table.left)
    caption = tex(f"{table.title}. {table.note}".strip())
    lines = [r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{4pt}", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", _ampersands(table.header), r"\midrule"]
    lines += [*(_ampersands(row) for row in table.rows), r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*lines, ""])


def rich_table(table: Table, most: int | None = None) -> Group:
    """For the terminal, the first `most` rows: title, table and note, none squeezed into the width of another."""
    from rich.console import Group
    from rich.table import Table as RichTable

    made = RichTable()
    for column, name in enumerate(table.header):
        made.add_column(_text(name), justify="left" if column < table.left else "right", overflow="fold")
    for row in table.rows[:most]:
        made.add_row(*map(_text, row))
    more = len(table.rows) - made.row_count
    below = [table.note] * bool(table.note) + [f"and {more} more: see table.md"] * bool(more)
    return Group(_text(table.title, "bold"), made, *map(_text, below), "")


def _text(cell: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(cell, LONGEST), style=style)


def write_tables(report: Report, out: Path) -> list[Path]:
    """Write runs.csv, table.md and table.tex."""
    texts = {"runs.csv": _csv(report), "table.md": _markdown_page(report), "table.tex": _latex_page(report)}
    for name, text in texts.items():
        with replacing(out / name) as file:
            file.write(text.encode())
    return [out / name for name in texts]


def _markdown_page(report: Report) -> str:
    sweep = report.sweep
    parts = [f"# {md(sweep.name)}\n\n{md_code(sweep.command)}\n" if sweep else "# Report\n"]
    for problem in report.problems:
        parts += [f"## {md(problem.title)}\n", *map(markdown, problem_tables(problem, report.size))]
    if (unfinished := unfinished_table(report)) is not None:
        parts += ["## Not finished\n", markdown(unfinished, _MOST)]
    if report.left_out:
        parts += ["## Left out\n", *(f"- {md(line)}" for line in report.left_out), ""]
    if report.warnings:
        parts += ["## Warnings\n", *(f"- {md(line)}" for line in report.warnings), ""]
    return "\n".join(parts)


def _latex_page(report: Report) -> str:
    tables = [table for problem in report.problems for table in problem_tables(problem, report.size)]
    return "\n".join(["% \\usepackage{booktabs}", *map(latex, tables)])


def _methods(problem: Problem, kind: str) -> Table:
    looks = styles(problem.methods)
    rows = []
    for name, method in problem.methods.items():
        volume = NONE if method.hypervolume is None else f"{method.hypervolume:.1f}"
        row = [looks[name].label, str(len(method.points)), volume]
        row += [megabytes(point.size if point else None) for point in method.within.values()]
        rows.append([*row, *map(score_text, method.at.values())])
    headline = problem.headline
    sizes = [f"{headline.suffix} at {megabytes(size)} MB" for size in next(iter(problem.methods.values())).at]
    header = ["method", "points", "hypervolume", *(f"within {by:g}" for by in headline.tolerances), *sizes]
    unit = f"{headline.amount} x halvings of the float32 size, {headline.better} chance"
    distance = f"the smallest MB at most N {headline.difference} {headline.worse} float32"
    note = f"Hypervolume: {unit}. Within N: {distance}, {_float32(problem)}."
    return Table(f"{problem.title}: methods, by {SIZE_LABEL[kind]}", header, rows, note=note)


def _float32(problem: Problem) -> str:
    base = problem.float32
    if base is None:
        return "of which there is no run (add quantizer=none)"
    score = problem.headline.spread_text(base.score, base.std)
    return f"which has {score} {problem.headline.suffix} and {megabytes(base.mb)} MB"


def _front(problem: Problem) -> Table:
    looks = styles(problem.methods)
    rows = [
        [
            looks[point.method].label,
            point.label or NONE,
            score_text(point),
            megabytes(point.size),
            str(len(point.runs)),
        ]
        for point in problem.front
    ]
    header = ("method", "configuration", problem.headline.axis, "MB", "runs")
    title = f"{problem.title}: front, {len(problem.front)} of {len(problem.points)} configurations"
    return Table(title, header, rows, left=2)


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(map(tex, cells)) + r" \\"


def _csv(report: Report) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header, rows = run_rows(report)
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return text.getvalue()


def run_rows(report: Report) -> tuple[list[str], list[list[object]]]:
    """A row per run, unfinished runs too: the keys that vary, then the results, named as in result.json."""
    runs = sorted([*report.runs, *report.others], key=lambda run: run.folder.as_posix())
    chosen = list(dict.fromkeys([*_ALWAYS, *keys_that_vary(report)]))
    groups = {name for run in runs for name in run.choices}
    names = [f"{'choices' if key in groups else 'config'}.{key}" for key in chosen]
    scores = _scores(report) + [(group, name) for group, inner in _SIZES.items() for name in inner]
    header = ["folder", "signature", "run_id", "status", *names, *map(".".join, scores), *_PLAIN, "command"]
    rows = []
    for run in runs:
        row: list[object] = [run.folder.as_posix(), run.signature, run.record.run_id, run.status]
        row += [_plain(run.value(key)) for key in chosen]
        row += [run.record.number(group, name) for group, name in scores]
        rows.append([*row, *(getattr(run.record, name) for name in _PLAIN), run.command])
    return header, rows


def _scores(report: Report) -> list[tuple[str, str]]:
    """The scores in runs.csv: test.accuracy, test.loss, ... for each headline of the report."""
    headlines = list({problem.headline.name: problem.headline for problem in report.problems}.values())
    names = [headline.name for headline in headlines or [Headline()]]
    float32 = [headline.float32_name for headline in headlines or [Headline()]]
    return [("test", name) for name in (*names, "loss", *float32)] + [("val", name) for name in (*names, "loss")]


def _plain(value: object) -> object:
    return shown(value) if isinstance(value, (bool, list, dict)) else value
