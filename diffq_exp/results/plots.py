"""The picture of a report, pareto.png, .svg and .pdf: the headline against megabytes, a front per method.

Every point is inside the axes. The scale of scores is that of the fronts, as a broken run would press all others
into a line. What is worse lies in a grey strip at the worse edge, whose scale is compressed.
The axis keeps the direction of the headline: better is up for an accuracy, down for bits per byte.
matplotlib is imported when something is drawn; there is no pyplot and no global state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import replacing
from ..common.names import unknown
from ..common.printable import printable
from .axes import dress, place_labels, score_axis, size_axis
from .looks import STYLES, Style, styles
from .summary import FLOAT32, MethodSummary, Problem, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = 12
PICTURES = ("pareto.png", "pareto.svg", "pareto.pdf")
SIZE_LABEL = {"file": "size of model.safetensors, MB", "true": "size by the method's formula, MB"}
_MOST_BARS = 12  # of a method's points behind its front
_WAYS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200}, "svg": {"metadata": {"Date": None}}, "pdf": {"metadata": {"CreationDate": None}},
}  # fmt: skip
_DASHED: dict[str, Any] = {"color": "black", "linestyle": (0, (5, 3)), "linewidth": 0.9, "alpha": 0.7}


@dataclass(frozen=True)
class Picture:
    """What can be chosen. size: width and height in inches; None: as large as the panels and the legend need.

    font: the name of a family that matplotlib finds. font_size: in points. title: in place of the problem's name.
    """

    size: tuple[float, float] | None = None
    font: str | None = None
    font_size: float = 9
    title: str | None = None


PICTURE = Picture()


def draw(report: Report, out: Path, picture: Picture = PICTURE) -> list[Path]:
    """Write PICTURES, a panel for each of the first PANELS problems; same report, same bytes.

    Raises: ValueError for an unknown font.
    """
    with _settings(picture):
        figure = _figure(report, picture)
        targets = [out / name for name in PICTURES]
        for target in targets:
            kind = target.suffix[1:]
            with replacing(target) as file:
                figure.savefig(file, format=kind, **_WAYS[kind])
    return targets


def check_font(name: str) -> None:
    """Raises: ValueError that names the nearest font, where matplotlib finds none of this name."""
    from matplotlib.font_manager import get_font_names

    if name not in (known := get_font_names()) and name not in ("serif", "sans-serif", "monospace"):
        raise ValueError(unknown("font", name, sorted(known)))


@contextmanager
def _settings(picture: Picture) -> Iterator[None]:
    import matplotlib

    if picture.font:
        check_font(picture.font)
    settings: dict[Any, Any] = {
        "svg.hashsalt": "diffq_exp",
        "pdf.fonttype": 42,
        "font.size": picture.font_size,
        "font.family": [picture.font, "DejaVu Sans"] if picture.font else ["DejaVu Sans"],
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font lacks: boxes
        yield


def _figure(report: Report, picture: Picture) -> Any:
    from matplotlib.figure import Figure

    shown = report.problems[:PANELS]
    columns = min(len(shown), 3 if len(shown) != 4 else 2)
    rows = math.ceil(len(shown) / columns)
    looks = styles(name for problem in shown for name in problem.methods)
    width, height = (6.4, 4.2) if columns == 1 else (4.2 * columns, 3.4 * rows)
    figure = Figure(figsize=picture.size or (width, height), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, problem in zip(panels, shown, strict=False):
        title = problem.title if picture.title is None or len(shown) > 1 else picture.title
        axes.set_title(printable(title, 60), loc="left", parse_math=False)
        _draw_problem(axes, problem, looks, report)
    for axes in panels[len(shown) :]:
        axes.remove()
    if picture.title is not None and len(shown) > 1:
        figure.suptitle(printable(picture.title, 100), parse_math=False)
    legend = _legend(figure, looks, any(problem.float32 for problem in shown))
    if picture.size is None:
        figure.set_figheight(height + legend)
    return figure


def _draw_problem(axes: Axes, problem: Problem, looks: dict[str, Style], report: Report) -> None:
    size_axis(axes, problem)
    strip = score_axis(axes, problem)
    if problem.float32:
        axes.axhline(problem.headline.shown(problem.float32.score), zorder=1, **_DASHED)
    for name, method in problem.methods.items():
        _draw_method(axes, method, looks[name])
    place_labels(axes, problem, strip)
    dress(axes, SIZE_LABEL[report.size], problem.headline.axis_title)


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


def _legend(figure: Figure, looks: dict[str, Style], float32: bool) -> float:
    """Below all panels, as many columns as fit; -> its height in inches. The dashed line is float32's."""
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], label=look.label, color=look.colour, marker=look.marker, markersize=5.5)
        for name, look in looks.items()
        if name != FLOAT32
    ]
    if float32 or FLOAT32 in looks:
        star = STYLES[FLOAT32].marker if FLOAT32 in looks else None
        entries.append(Line2D([], [], label="float32", marker=star, markersize=9, **_DASHED))
    for columns in range(min(len(entries), 8), 0, -1):
        width, height = _legend_of(figure, entries, columns)
        if width <= 0.98 * figure.bbox.width:
            break
    return height / float(figure.dpi)


def _legend_of(figure: Figure, entries: Sequence[Any], columns: int) -> tuple[float, float]:
    """Put a legend of so many columns in the place of the one before; -> width and height in pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for legend in [*figure.legends]:
        legend.remove()
    legend = figure.legend(handles=entries, loc="outside lower center", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    box = legend.get_window_extent(FigureCanvasAgg(figure).get_renderer())  # type: ignore[no-untyped-call]
    return float(box.width), float(box.height)
