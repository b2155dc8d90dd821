"""The picture of a report, pareto.png and pareto.svg: the headline against megabytes, a front per method.

Also the one table of how a method looks, for this picture and for the page. The range of scores is that of the
fronts: a broken run would press all others into a line. A point outside the range is marked at the worse edge, with
its value. The axis keeps the direction of the headline: better is up for an accuracy, down for bits per byte.
matplotlib is imported when something is drawn; there is no pyplot and no global state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import replacing
from .headline import Headline
from .points import Point
from .summary import FLOAT32, MethodSummary, Problem, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12
SIZE_LABEL = {"file": "size of model.safetensors, MB", "true": "size by the method's formula, MB"}
_MOST_BARS = 12  # of a method's points behind its front
_LEAST_SPAN = 4  # smallest tolerances of the headline: 2 points of accuracy
_APART = 0.06  # of the axis: room for a value written at the edge
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


STYLES = {  # colours of Okabe and Ito (2008), which the colour-blind can tell apart, and a marker each
    "diffq": Style("#D55E00", "o", "circle", "DiffQ"),
    "rate": Style("#56B4E9", "P", "cross", "rate"),
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
    """How each method looks. A method without a style of its own takes the next colour and marker still free."""
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


def worst_shown(problem: Problem) -> float:
    """The worst score that is worth showing: most of the fronts are better, broken runs are worse."""
    headline = problem.headline
    base = [headline.goodness(problem.float32.score)] if problem.float32 else []
    best = max([point.goodness for point in problem.front] + base)
    drops = sorted(best - point.goodness for method in problem.methods.values() for point in method.front)
    usual = drops[(3 * (len(drops) - 1)) // 4]
    span = max(min(drops[-1], 2.5 * usual), least_span(headline))
    feet = [point.goodness - (point.score_std or 0.0) for point in problem.points if point.goodness >= best - span]
    return headline.goodness(max(min([best - span, *feet]), best - 2 * span))  # a wild spread is cut off


def least_span(headline: Headline) -> float:
    """The least range of an axis, as a value: runs that differ by less look alike."""
    return _LEAST_SPAN * min(headline.tolerances, default=0.5) / headline.factor


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


def _draw_problem(axes: Axes, problem: Problem, looks: dict[str, Style], report: Report) -> None:
    axes.set_title(problem.title, loc="left", parse_math=False)
    if problem.float32:
        axes.axhline(problem.headline.shown(problem.float32.score), zorder=1, **_DASHED)
    for name, method in problem.methods.items():
        _draw_method(axes, method, looks[name])
    _limits(axes, problem, looks)
    axes.set_xlabel(SIZE_LABEL[report.size])
    axes.set_ylabel(problem.headline.axis_title, parse_math=False)
    axes.grid(alpha=0.2, linewidth=0.6)


def _draw_method(axes: Axes, method: MethodSummary, look: Style) -> None:
    """The front as a line with its points; the method's other points fainter."""
    big = 9.0 if look.marker == "*" else 5.5
    behind = [point for point in method.points if point not in method.front]
    for points, line, alpha, size in ((behind, "none", 0.35, 0.7 * big), (method.front, "-", 1.0, big)):
        if points:
            spread = any(point.score_std or point.size_std for point in points)
            bars = spread and (line == "-" or len(points) <= _MOST_BARS)  # of a crowd they would hide the fronts
            axes.errorbar(
                [point.size for point in points],
                [point.headline.shown(point.score) for point in points],
                xerr=[point.size_std or 0 for point in points] if bars else None,
                yerr=[point.headline.shown(point.score_std or 0) for point in points] if bars else None,
                color=look.colour, marker=look.marker, markersize=size, alpha=alpha, linestyle=line, linewidth=1.3,
                elinewidth=0.8, capsize=1.5, markeredgecolor="white", markeredgewidth=0.5,
                zorder=3 if line == "-" else 2,
            )  # fmt: skip


def _limits(axes: Axes, problem: Problem, looks: dict[str, Style]) -> None:
    sizes, goodnesses = zip(*(point.pair for point in problem.points), strict=True)
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    headline = problem.headline
    floor = headline.goodness(worst_shown(problem))
    heads = [point.goodness + (point.score_std or 0.0) for point in problem.points]
    best = min(max(*heads, floor), max(goodnesses) + (max(goodnesses) - floor))
    room = 0.06 * (best - floor)
    axes.set_xscale("log")
    lower = floor - (2 if min(goodnesses) < floor - room else 1) * room  # arrows have a strip of their own
    ends = [headline.shown(headline.goodness(end)) for end in (lower, best + room)]
    axes.set(xlim=(low, high), ylim=sorted(ends))
    axes.set_xticks(ticks(low, high))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")
    _mark_outside(axes, headline, [point for point in problem.points if point.goodness < lower], looks)


def _mark_outside(axes: Axes, headline: Headline, points: Sequence[Point], looks: dict[str, Style]) -> None:
    """Arrows at the worse edge; their values beside them, or in a sentence where they would overlap."""
    arrow, edge, inwards, side = ("\u25bc", 0.0, 1, "bottom") if headline.sign > 0 else ("\u25b2", 1.0, -1, "top")
    look: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "ha": "center", "va": side, "fontsize": 7.5}
    places = sorted(
        axes.transAxes.inverted().transform(axes.transData.transform((point.size, 1)))[0] for point in points
    )
    apart = all(right - left > _APART for left, right in pairwise(places))
    for point in points:
        axes.annotate(arrow, (point.size, edge), color=looks[point.method].colour, **look)
        if apart:
            axes.annotate(f"{headline.shown(point.score):.1f}", (point.size, edge + 0.045 * inwards), **look)
    if not apart:
        values = [headline.shown(point.score) for point in points]
        text = f"{arrow} {len(points)} points {headline.worse}, {min(values):.1f} to {max(values):.1f}"
        text += f" {headline.suffix}"
        axes.text(0.99, edge + 0.03 * inwards, text, transform=axes.transAxes, ha="right", va=side, fontsize=7.5)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two sizes: as many as can be labelled, by decades or, on a short axis, evenly."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [[step * 10.0**decade for decade in decades for step in steps] for steps in _TICKS]
    for step in (step * 10.0**decade for decade in (decades[0] - 1, *decades) for step in (1, 2, 5)):
        first = math.ceil(low / step)
        candidates.append([step * (first + count) for count in range(10)])
    inside = [[round(tick, 12) for tick in candidate if low <= tick <= high] for candidate in candidates]
    return max((labels for labels in inside if _far_apart(labels, math.log(high / low))), key=len)


def _far_apart(values: Sequence[float], axis: float) -> bool:
    return all(math.log(right / left) >= _TICK_APART * axis for left, right in pairwise(values))


def _legend(figure: Figure, looks: dict[str, Style], float32: bool) -> None:
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


def _free(values: Sequence[str], taken: Sequence[str]) -> list[str]:
    return [value for value in values if value not in taken] or list(values)
