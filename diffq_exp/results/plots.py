"""The picture of a report, pareto.png and pareto.svg: accuracy against megabytes, a front per method.

Also the one table of how a method looks, for this picture and for the page. The range of accuracies is that of the
fronts: one broken run must not press everything worth seeing into a line at the top. What lies below is marked at
the lower edge, with its value. matplotlib is imported when something is drawn; no pyplot, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..common.files import replacing
from .points import Point
from .summary import FLOAT32, MethodSummary, Problem, Report

PANELS = 12
SIZE_LABEL = {"file": "size of model.safetensors, MB", "true": "size by the paper's formula, MB"}
_MOST_BARS = 12  # of a method's points behind its front
_LEAST_SPAN = 0.02  # of accuracy, below the best
_APART = 0.06  # of the axis: room for a value written at the lower edge
_TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
_TICK_APART = 0.09  # of the axis: a label, and some air
_DASHED: dict[str, Any] = {"color": "black", "linestyle": (0, (5, 3)), "linewidth": 0.9, "alpha": 0.7}


@dataclass(frozen=True)
class Style:
    """marker: matplotlib's name; symbol: plotly's name of the same."""

    colour: str
    marker: str
    symbol: str
    label: str


STYLES = {  # colours of Okabe and Ito (2008), told apart by the colour-blind, and a marker each
    "diffq": Style("#D55E00", "o", "circle", "DiffQ"),
    "qat": Style("#0072B2", "s", "square", "QAT"),
    "lsq": Style("#009E73", "^", "triangle-up", "LSQ"),
    "ptq": Style("#CC79A7", "D", "diamond", "PTQ"),
    FLOAT32: Style("#000000", "*", "star", "float32"),
}
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D00", "#777777")
_SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "P": "cross",
    "X": "x",
    "p": "pentagon",
}


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """How each method looks. One without a style of its own takes the next colour and marker still free."""
    methods = list(methods)
    known = {name: STYLES[name] for name in methods if name in STYLES}
    colours = _free(_COLOURS, [style.colour for style in known.values()])
    shapes = _free(tuple(_SHAPES), [style.marker for style in known.values()])
    others = [name for name in methods if name not in STYLES]
    new = {
        name: Style(colours[at % len(colours)], shape := shapes[at % len(shapes)], _SHAPES[shape], name)
        for at, name in enumerate(others)
    }
    return {name: {**known, **new}[name] for name in methods}


def accuracy_floor(problem: Problem) -> float:
    """Lower end of the accuracies worth showing: with most of the fronts above it, and broken runs below."""
    best = max([point.accuracy for point in problem.front] + [problem.float32.accuracy if problem.float32 else 0.0])
    drops = sorted(best - point.accuracy for method in problem.methods.values() for point in method.front)
    usual = drops[(3 * (len(drops) - 1)) // 4]
    span = max(min(drops[-1], 2.5 * usual), _LEAST_SPAN)
    feet = [
        point.accuracy - (point.accuracy_std or 0.0) for point in problem.points if point.accuracy >= best - span
    ]
    return max(min([best - span, *feet]), best - 2 * span)  # a wild spread is cut off


def draw(report: Report, out: Path) -> list[Path]:
    """Write pareto.png and pareto.svg, a panel for each of the first PANELS problems; same report, same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = report.problems[:PANELS]
    columns = min(len(shown), 3 if len(shown) != 4 else 2)
    rows = math.ceil(len(shown) / columns)
    looks = styles(dict.fromkeys(name for problem in report.problems for name in problem.methods))
    settings: dict[Any, Any] = {
        "svg.hashsalt": "diffq_exp",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        wide = 6.4 if columns == 1 else 4.2 * columns
        figure = Figure(figsize=(wide, (4.2 if columns == 1 else 3.4) * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flat
        for axes, problem in zip(panels, shown, strict=False):
            _draw_problem(axes, problem, looks, report)
        for axes in list(panels)[len(shown) :]:
            axes.remove()
        _legend(figure, looks, any(problem.float32 for problem in shown))
        targets = [out / "pareto.png", out / "pareto.svg"]
        ways: list[dict[str, Any]] = [{"dpi": 200}, {"metadata": {"Date": None}}]
        for target, more in zip(targets, ways, strict=True):
            with replacing(target) as file:
                figure.savefig(file, format=target.suffix[1:], **more)
    return targets


def _draw_problem(axes: Any, problem: Problem, looks: dict[str, Style], report: Report) -> None:
    axes.set_title(problem.title, loc="left", parse_math=False)
    if problem.float32:
        axes.axhline(100 * problem.float32.accuracy, zorder=1, **_DASHED)
    for name, method in problem.methods.items():
        _draw_method(axes, method, looks[name])
    _limits(axes, problem, looks)
    axes.set(xlabel=SIZE_LABEL[report.size], ylabel="test accuracy, %")
    axes.grid(alpha=0.2, linewidth=0.6)


def _draw_method(axes: Any, method: MethodSummary, look: Style) -> None:
    """The front as a line with its points; the method's other points fainter."""
    big = 9.0 if look.marker == "*" else 5.5
    behind = [point for point in method.points if point not in method.front]
    for points, line, alpha, size in ((behind, "none", 0.35, 0.7 * big), (method.front, "-", 1.0, big)):
        if points:
            spread = any(point.accuracy_std or point.size_std for point in points)
            bars = spread and (line == "-" or len(points) <= _MOST_BARS)  # of a crowd they would hide the fronts
            axes.errorbar(
                [point.size for point in points],
                [100 * point.accuracy for point in points],
                xerr=[point.size_std or 0 for point in points] if bars else None,
                yerr=[100 * (point.accuracy_std or 0) for point in points] if bars else None,
                color=look.colour, marker=look.marker, markersize=size, alpha=alpha, linestyle=line, linewidth=1.3,
                elinewidth=0.8, capsize=1.5, markeredgecolor="white", markeredgewidth=0.5,
                zorder=3 if line == "-" else 2,
            )  # fmt: skip


def _limits(axes: Any, problem: Problem, looks: dict[str, Style]) -> None:
    sizes, accuracies = zip(*(point.pair for point in problem.points), strict=True)
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    floor = accuracy_floor(problem)
    heads = [point.accuracy + (point.accuracy_std or 0.0) for point in problem.points]
    best = min(max(*heads, floor), max(accuracies) + (max(accuracies) - floor))
    room = 0.06 * (best - floor)
    axes.set_xscale("log")
    lower = floor - (2 if min(accuracies) < floor - room else 1) * room  # arrows have a strip of their own
    axes.set(xlim=(low, high), ylim=(100 * lower, 100 * (best + room)))
    axes.set_xticks(ticks(low, high))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    _mark_below(axes, [point for point in problem.points if point.accuracy < lower], looks)


def _mark_below(axes: Any, below: Sequence[Point], looks: dict[str, Style]) -> None:
    """Arrows at the lower edge; their values beside them, or in a sentence where they would overlap."""
    edge = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": "bottom", "fontsize": 7.5}
    places = sorted(
        axes.transAxes.inverted().transform(axes.transData.transform((point.size, 1)))[0] for point in below
    )
    apart = all(right - left > _APART for left, right in pairwise(places))
    for point in below:
        axes.annotate("\u25bc", (point.size, 0.0), color=looks[point.method].colour, **edge)
        if apart:
            axes.annotate(f"{100 * point.accuracy:.1f}", (point.size, 0.045), **edge)
    if not apart:
        values = [100 * point.accuracy for point in below]
        text = f"\u25bc {len(below)} points below, {min(values):.1f} to {max(values):.1f} %"
        axes.text(0.99, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two sizes: as many as can be labelled, by decades or, on a short axis, evenly."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[step * 10.0**decade for decade in decades for step in steps] for steps in _TICKS]
    for step in (step * 10.0**decade for decade in (decades[0] - 1, *decades) for step in (1, 2, 5)):
        first = math.ceil(low / step)
        choices.append([step * (first + count) for count in range(10)])
    inside = [[round(tick, 12) for tick in choice if low <= tick <= high] for choice in choices]
    return max((one for one in inside if _far_apart(one, math.log(high / low))), key=len)


def _far_apart(values: Sequence[float], axis: float) -> bool:
    return all(math.log(right / left) >= _TICK_APART * axis for left, right in pairwise(values))


def _legend(figure: Any, looks: dict[str, Style], float32: bool) -> None:
    """Below all panels; the dashed line is float32's, whether its size is known or not."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], label=look.label, color=look.colour, marker=look.marker, markersize=5.5)
        for name, look in looks.items()
        if name != FLOAT32
    ]
    if float32 or FLOAT32 in looks:
        star = STYLES[FLOAT32].marker if FLOAT32 in looks else None
        entries.append(Line2D([], [], label="float32", marker=star, markersize=9, **_DASHED))
    columns = int(figure.get_figwidth())
    legend = figure.legend(handles=entries, loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _free(all_of_them: Sequence[str], taken: Sequence[str]) -> list[str]:
    return [one for one in all_of_them if one not in taken] or list(all_of_them)
