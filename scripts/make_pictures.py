"""Make the pictures of README.md and docs/ from one set of runs.

    python scripts/make_pictures.py [OUTPUTS] [--experiment pareto_digits] [--sweep NAME] [--to docs]

OUTPUTS (outputs) has the runs of a sweep, by default the newest of the experiment, all of them finished. One report
of them is drawn as EXPERIMENT.svg. Of pareto_digits, the page is drawn too, in a headless Chromium, as
report_page.png: so both show the same numbers. This needs playwright (extra `browser`). `make pictures` trains what
is missing first, `make pictures EXPERIMENT=pareto_text ARGS="dataset.path=FILE"` that of another front.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.page import write_page
from diffq_exp.results.plots import draw
from diffq_exp.results.summary import Report, make_report
from diffq_exp.results.sweep_records import SWEEPS, read_sweep, runs_of

DOCS = Path(__file__).parents[1] / "docs"
DIGITS = "pareto_digits"
SIZE = {"width": 1400, "height": 1230}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, or 2 with one line on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument("--experiment", default=DIGITS)
    parser.add_argument("--sweep", metavar="NAME", help="in place of the newest of the experiment")
    parser.add_argument("--to", type=Path, default=DOCS)
    args = parser.parse_args(argv)
    try:
        sweep = args.sweep or newest(args.outputs, args.experiment)
        make_pictures(report_of(args.outputs, sweep), args.to, sweep.rpartition("-")[0])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def newest(outputs: Path, experiment: str) -> str:
    """The name of its last sweep. Raises: ValueError."""
    records = sorted((outputs / SWEEPS).glob(f"{experiment}-*.json"), key=lambda path: path.stat().st_mtime)
    if not records:
        raise ValueError(f"{outputs}: no sweep of experiment={experiment}; `make pictures` trains it")
    return records[-1].stem


def report_of(outputs: Path, name: str) -> Report:
    """The report of a sweep of which every job is finished. Raises: ValueError."""
    sweep = read_sweep(outputs, name)
    report = make_report(runs_of(sweep, find_runs([outputs])), sweep, by=sweep.by)
    if report.others or report.left_out:
        raise ValueError(f"{sweep.name}: {len(report.others) + len(report.left_out)} runs are not finished")
    return report


def make_pictures(report: Report, to: Path, experiment: str) -> None:
    """Write EXPERIMENT.svg, and report_page.png of the digits. Raises: OSError."""
    with tempfile.TemporaryDirectory() as folder:
        draw(report, Path(folder))
        if experiment == DIGITS:
            write_page(report, Path(folder) / "index.html")
            photograph(Path(folder) / "index.html", to / "report_page.png")
            print(to / "report_page.png")
        shutil.copy(Path(folder) / "pareto.svg", to / f"{experiment}.svg")
        print(to / f"{experiment}.svg")


def photograph(page: Path, picture: Path) -> None:
    """The top of a page, when its charts are drawn. Raises: OSError without a Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        raise OSError(f"none of {', '.join(CHROMIUM)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport=SIZE)
        window.set_default_timeout(120_000)
        window.goto(page.resolve().as_uri())
        window.wait_for_selector(".curve .main-svg")
        window.wait_for_timeout(1000)
        window.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
