"""The picture of growth.py: three panels of milliseconds added to a step. The same data, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffq_exp.common.files import replacing

LOOKS: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito, as in the report's plots
    "here": {"color": "#D55E00", "marker": "o", "label": "diffq_exp"},
    "diffq": {"color": "#0072B2", "marker": "s", "label": "diffq"},
}
Curve = list[dict[str, float]]


def draw(data: dict[str, Any], target: Path) -> None:
    """Write an SVG of the data of growth(); error bars are quartiles of the rounds."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "diffq_exp",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    curves: dict[str, dict[str, Curve]] = data["curves"]
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(12.6, 3.9), layout="constrained")
        for axes, (panel, sides) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
            axes.set_title(_title(panel, data), loc="left", fontsize=9)
            _draw_panel(axes, panel, sides)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        with replacing(target) as file:
            figure.savefig(file, format="svg", metadata={"Date": None})


def _title(panel: str, data: dict[str, Any]) -> str:
    """What stays the same in a panel."""
    same = {
        "weights": f"{_short(data['weights'])} weights",
        "tensors": f"{data['tensors']} tensors",
        "group size": f"group size {data['group_size']}",
    }
    return ", ".join(text for key, text in same.items() if key != panel)


def _draw_panel(axes: Any, panel: str, sides: dict[str, Curve]) -> None:
    values = [point["at"] for point in sides["here"]]
    named = panel == "group size"  # 0 is the whole tensor: places in order, not a scale
    for whose, curve in sides.items():
        shown = [point for point in curve if point["added_ms"] > 0]
        if shown:
            at = [values.index(point["at"]) if named else point["at"] for point in shown]
            middle = [point["added_ms"] for point in shown]
            low = [point["added_ms"] - max(point["low"], 0.5 * point["added_ms"]) for point in shown]
            high = [point["high"] - point["added_ms"] for point in shown]
            axes.errorbar(
                at, middle, yerr=[low, high], linewidth=1.3, markersize=5.5, elinewidth=0.8, capsize=1.5,
                markeredgecolor="white", markeredgewidth=0.5, **LOOKS[whose],
            )  # fmt: skip
    if panel == "weights":
        _draw_law(axes, sides["here"])
    _set_axes(axes, panel, values, named)


def _draw_law(axes: Any, curve: Curve) -> None:
    """A dashed line of exponent 1 through the last point."""
    last = curve[-1]
    ends = [curve[0]["at"], last["at"]]
    if last["added_ms"] > 0:
        times = [last["added_ms"] * end / last["at"] for end in ends]
        look = {"color": "black", "linestyle": (0, (5, 3)), "linewidth": 0.9, "alpha": 0.7}
        axes.plot(ends, times, label="linear in weights", zorder=1, **look)


def _set_axes(axes: Any, panel: str, values: list[float], named: bool) -> None:
    if named:
        axes.set_xticks(range(len(values)), [f"{value:g}" if value else "whole\ntensor" for value in values])
    else:
        axes.set_xscale("log")
        axes.set_xticks(values, [_short(value) for value in values])
        axes.set_xticks([], minor=True)
    axes.set(xlabel=panel, ylabel="ms added to a step")
    if panel == "weights":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.2, linewidth=0.6)


def _short(value: float) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:g}"
