"""A report of good runs beside runs with damaged records, and what is wrong with it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
import traceback
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from diffq_exp.common.printable import printable
from diffq_exp.report import main

from .made_runs import made_run
from .record_damage import broken_folder, damaged

SECONDS = 2.0
GOOD = ("quantizer=none", "quantizer=qat", "quantizer=diffq", "quantizer=lsq")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")
_FORMULA = re.compile(r"^[=+\-@\t\r]")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*(e[+-]?\d+)?|inf|nan)$")
_TAG = re.compile(r"<[a-zA-Z!/]")


class Result(NamedTuple):
    """found: what is wrong, a line each; damage: what was done to the records."""

    found: list[str]
    damage: list[str]
    seconds: float


def faults(folder: Path, seeds: Sequence[int], usual: float = 0.0) -> Result:
    """Make the good runs and a damaged run for each seed, report them, and look at all that is written.

    usual: processor seconds of a report of good runs, which are not counted.
    """
    outputs, out = folder / "outputs", folder / "out"
    good = [made_run(outputs, [method]) for method in GOOD]
    bad, damage = [], []
    for seed in seeds:
        run = made_run(outputs, ["quantizer=qat", "bits=3", f"seed={seed + 100}"])
        damage.append(damaged(run, seed))
        bad.append(broken_folder(run, seed) if seed % 7 == 0 else run)
    started = time.process_time()
    text, error, code = _reported([str(outputs), "--out", str(out), "--no-wandb"])
    seconds = max(0.0, time.process_time() - started - usual)
    found = [error] if error else []
    found += [f"exit code {code}"] if code != 0 else []
    found += [f"{seconds:.1f} s"] if seconds > SECONDS else []
    found += [] if error or code else [*_lost(good, out), *_unnamed(bad, out), *_active(out, text)]
    return Result([f"{line} ({', '.join(damage) if len(damage) == 1 else ''})" for line in found], damage, seconds)


def _reported(words: Sequence[str]) -> tuple[str, str, int]:
    """-> what is printed, the last lines of a traceback or "", the exit code."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "", f"{type(error).__name__}: {str(error)[:80]} at {Path(where.filename).name}:{where.lineno}", 3
    return out.getvalue(), "", code


def _lost(good: Sequence[Path], out: Path) -> Iterator[str]:
    """Good runs that a table or the page does not have as they are."""
    rows = {Path(row["folder"]).name: row for row in csv.DictReader((out / "runs.csv").read_text().splitlines())}
    page = {run["folder"] for run in page_data(out)["runs"]}
    for folder in good:
        row = rows.get(folder.name)
        if row is None or row["status"] != "finished" or folder.name not in page:
            yield f"lost: {folder.name}"
        elif float(row["test.accuracy"]) != json.loads((folder / "result.json").read_text())["test"]["accuracy"]:
            yield f"another number: {folder.name}"


def _unnamed(bad: Sequence[Path], out: Path) -> Iterator[str]:
    """Damaged runs that are nowhere: neither in a table nor in a line; a folder without a record is no run."""
    data = page_data(out)
    named = [run["folder"] for run in (*data["runs"], *data["unfinished"])] + data["unread"]
    for folder in bad:
        name = printable(folder.name)
        if os.path.lexists(folder / "result.json") and not any(name in line for line in named):
            yield f"neither reported nor named: {folder.name[:60]!r}"


def _active(out: Path, terminal: str) -> Iterator[str]:
    """What would act where it is opened."""
    if found := _CONTROL.search(terminal):
        yield f"a control character on the terminal: {found[0]!r}"
    for name in ("runs.csv", "table.md", "table.tex", "pareto.svg", "index.html"):
        text = (out / name).read_text(encoding="utf-8")
        text = text.partition('id="data">')[2].partition("</script>")[0] if name == "index.html" else text
        if found := _CONTROL.search(text):
            yield f"a control character in {name}: {found[0]!r}"
    if found := _TAG.search((out / "table.md").read_text()):
        yield f"a tag in table.md: {found[0]!r}"
    for row in csv.reader((out / "runs.csv").read_text().splitlines()):
        for cell in row:
            if _FORMULA.match(cell) and not _NUMBER.match(cell):
                yield f"a formula in runs.csv: {cell[:20]!r}"
    ElementTree.parse(out / "pareto.svg")


def page_data(out: Path) -> dict:  # type: ignore[type-arg]
    """The data in a page."""
    text = (out / "index.html").read_text(encoding="utf-8")
    data: dict = json.loads(text.partition('id="data">')[2].partition("</script>")[0])  # type: ignore[type-arg]
    return data
