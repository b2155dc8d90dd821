"""The axes of the picture: round sizes, and a scale of scores on which every point is.

The scale is linear from the best score to the worst that is worth showing; beyond it, a strip is compressed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..common.printable import printable
from .headline import Headline
from .points import Point
from .summary import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_SPAN = 4  # smallest tolerances of the headline: 2 points of accuracy
_STRIP = 0.16  # height of the compressed strip, of the linear part
_ROOM = 0.06  # air beyond the last points, of the linear part
_BESIDE = 0.09  # of the axis: room for a value beside its point
_TICKS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
_TICK_APART = 0.09  # of the axis of a single panel: a label, and some air
_LETTERS, _DIGIT = 6, 0.61  # of a label and its air; the width of a digit, of the size of the font
_AXIS = 0.8  # the length of an axis, of the width of its panel
_STEPS = (1, 2, 2.5, 5, 10)
_QUIET = "#666666"


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


@dataclass(frozen=True)
class Scale:
    """From goodness, as it is shown, to the height on the paper: linear above `floor`, `squeeze` as steep below.

    lowest, top: the ends of the axis. floor == lowest: nothing is compressed.
    """

    floor: float
    lowest: float
    top: float
    squeeze: float = 1.0

    @property
    def has_strip(self) -> bool:
        return self.lowest < self.floor

    def forward(self, goodness: Any) -> Any:
        import numpy as np

        return np.where(goodness >= self.floor, goodness, self.floor + (goodness - self.floor) * self.squeeze)

    def backward(self, height: Any) -> Any:
        import numpy as np

        return np.where(height >= self.floor, height, self.floor + (height - self.floor) / self.squeeze)


def scale_of(problem: Problem) -> Scale:
    """The scale on which all points are. A spread may go beyond its ends."""
    factor, headline = problem.headline.factor, problem.headline
    floor = factor * headline.goodness(worst_shown(problem))
    values = [factor * point.goodness for point in problem.points]
    heads = [factor * (point.goodness + (point.score_std or 0.0)) for point in problem.points]
    best = max(values)
    top = min(max(*heads, floor), best + (best - floor))
    room, worst = _ROOM * (top - floor), min(values)
    if worst >= floor - _STRIP * (top - floor):  # so little beyond it that the scale may be one
        floor = min(floor, worst) - room
        return Scale(floor, floor, top + room)
    squeeze = _STRIP * (top - floor) / (floor - worst)
    return Scale(floor - room, floor - room - (floor - worst) - 1.5 * room / squeeze, top + room, squeeze)


def score_axis(axes: Axes, problem: Problem) -> Scale:
    """Give the axes their scale of scores, and the strip its grey; -> the scale."""
    from matplotlib.ticker import MaxNLocator

    scale, sign = scale_of(problem), problem.headline.sign
    if scale.has_strip:
        axes.set_yscale(
            "function",
            functions=(lambda y: sign * scale.forward(sign * y), lambda y: sign * scale.backward(sign * y)),
        )
        axes.axhspan(sign * scale.lowest, sign * scale.floor, color="black", alpha=0.06, linewidth=0, zorder=0)
    ticks = [
        tick
        for tick in MaxNLocator(7, steps=_STEPS).tick_values(scale.floor, scale.top)
        if scale.floor <= tick <= scale.top
    ]
    if scale.has_strip:
        below = MaxNLocator(2, steps=_STEPS).tick_values(scale.lowest, scale.floor)
        far = scale.floor - 0.35 * (scale.floor - scale.lowest)
        ticks += [tick for tick in below if scale.lowest <= tick <= far]
    axes.set_ylim(*sorted((sign * scale.lowest, sign * scale.top)))
    axes.set_yticks([sign * tick for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    return scale


def size_axis(axes: Axes, problem: Problem) -> None:
    sizes = [point.size for point in problem.points]
    low, high = min(sizes) / 1.25, max(sizes) * 1.25
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks(low, high, max(_TICK_APART, _label_width(axes))))
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter("{x:g}")


def _label_width(axes: Axes) -> float:
    """About the width of a tick's label and its air, of the axis."""
    import matplotlib

    place, figure = axes.get_subplotspec(), axes.figure
    columns = place.get_gridspec().ncols if place is not None else 1
    points = 72 * _AXIS * figure.get_figwidth() / columns  # type: ignore[union-attr]
    return float(_LETTERS * _DIGIT * matplotlib.rcParams["font.size"] / points)


def dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(printable(y_label, 60), parse_math=False)
    axes.grid(alpha=0.2, linewidth=0.6)


def place_labels(axes: Axes, problem: Problem, scale: Scale) -> None:
    """The values of the points in the strip: on the side from which no line comes, or in a sentence for many."""
    if not scale.has_strip:
        return
    headline = problem.headline
    edge, side = (0.015, "bottom") if headline.sign > 0 else (0.985, "top")
    quiet: dict[str, Any] = {"fontsize": "small", "color": _QUIET, "va": side, "ha": "right"}
    inside = [point for point in problem.points if headline.factor * point.goodness < scale.floor]
    places = sorted(_across(axes, point) for point in inside)
    if all(right - left > _BESIDE for left, right in pairwise(places)):
        for point in inside:
            _beside(axes, point)
        text = "compressed scale"
    else:
        values = sorted(headline.shown(point.score) for point in inside)
        ends = f"{values[0]:.{headline.digits}f} to {values[-1]:.{headline.digits}f} {headline.suffix}"
        text = f"compressed scale: {len(inside)} points, {printable(ends, 60)}"
    axes.text(0.99, edge, text, transform=axes.transAxes, zorder=6, **quiet)


def _across(axes: Axes, point: Point) -> float:
    """Where a point is between the left and the right end of the axis, 0 to 1."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((point.size, 1)))[0])


def _beside(axes: Axes, point: Point) -> None:
    """A front comes from the left and goes to the right, so a value is left of its point, above all lines."""
    from matplotlib.patheffects import withStroke

    right = _across(axes, point) < _BESIDE
    axes.annotate(
        point.headline.text(point.score), (point.size, point.headline.shown(point.score)),
        xytext=(6 if right else -6, 0), textcoords="offset points", ha="left" if right else "right", va="center",
        fontsize="small", zorder=6, path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )  # fmt: skip


def ticks(low: float, high: float, apart: float = _TICK_APART) -> list[float]:
    """Round numbers between two sizes: as many as can be labelled, by decades or, on a short axis, evenly.

    apart: the least distance of two of them, of the axis.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [[step * 10.0**decade for decade in decades for step in steps] for steps in _TICKS]
    for step in (step * 10.0**decade for decade in (decades[0] - 1, *decades) for step in (1, 2, 5)):
        first = math.ceil(low / step)
        candidates.append([step * (first + count) for count in range(10)])
    inside = [[round(tick, 12) for tick in candidate if low <= tick <= high] for candidate in candidates]
    return max((labels for labels in inside if _far_apart(labels, apart * math.log(high / low))), key=len)


def _far_apart(values: Sequence[float], apart: float) -> bool:
    return all(math.log(right / left) >= apart for left, right in pairwise(values))
