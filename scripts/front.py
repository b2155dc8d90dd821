"""Draw accuracy against megabytes for the finished runs of a folder: python scripts/front.py outputs front.svg

A dot per run, a line per method through its runs in the order of their size. Reads result.json only.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import LogLocator, NullLocator

STYLE = {  # colours of Okabe and Ito (2008), told apart by the colour-blind, and a marker each
    "diffq": ("#D55E00", "o", "DiffQ, learned bits"),
    "qat": ("#0072B2", "s", "QAT, fixed bits"),
    "lsq": ("#009E73", "^", "LSQ, fixed bits"),
    "ptq": ("#CC79A7", "v", "PTQ, fixed bits"),
    "none": ("#000000", "*", "float32"),
}


def finished_runs(outputs: Path) -> dict[str, list[tuple[float, float]]]:
    """{method: [(MB of the file, test accuracy in percent)]}; the method is the third word of a folder's name."""
    runs = defaultdict(list)
    for path in outputs.glob("*/result.json"):
        result = json.loads(path.read_text())
        if result["status"] == "finished":
            method = path.parent.name.rsplit("-", 2)[1]
            runs[method].append((result["size_mb"]["file"], 100 * result["test"]["accuracy"]))
    return runs


def draw(runs: dict[str, list[tuple[float, float]]], target: Path, title: str) -> None:
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for method, (colour, marker, label) in STYLE.items():
        if points := sorted(runs.get(method, [])):
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label, linewidth=1.2)
    axes.set(xscale="log", xlabel="model.safetensors, MB", ylabel="test accuracy, %", title=title)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python scripts/front.py OUTPUTS PICTURE [TITLE]")
    draw(finished_runs(Path(sys.argv[1])), Path(sys.argv[2]), " ".join(sys.argv[3:]))
