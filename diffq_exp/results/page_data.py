"""The content of a report's page as plain data: problems, points and runs refer to each other by position in lists.

Nothing is computed here that the Report does not hold; values that many runs share (layers, machines) are stored
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from .axes import least_span, worst_shown
from .discovery import Run
from .headline import PERCENT, Headline
from .looks import styles
from .page_run import Numbered, run_data, score_and_unit
from .points import Point, mean_std
from .summary import Problem, Report
from .tables import NONE, megabytes

_ORDER = ("finished", "running", "interrupted", "failed", "diverged", "killed", "missing")


def title_of(report: Report) -> str:
    """The sweep's name; without a sweep the folder or folders in which the runs lie."""
    if report.sweep is not None:
        return report.sweep.name
    folders = {run.folder.resolve().parent.name for run in (*report.runs, *report.others)}
    return ", ".join(sorted(folders)) or "No runs"


def page_data(report: Report) -> dict[str, object]:
    """All that the page shows, of plain types; runs and points refer to each other by position."""
    runs = report.runs
    position = {id(run): at for at, run in enumerate(runs)}
    layers, hardware = Numbered(), Numbered()
    statuses = Counter(run.status for run in (*runs, *report.others))
    return {
        "title": title_of(report),
        "command": report.sweep.command if report.sweep else None,
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "size": report.size,
        "averaged": report.averaged,
        "by": report.by,
        "total": statuses.total(),
        "counts": [(status, statuses[status]) for status in _in_order(statuses)],
        "epochs_kept": None,
        "styles": _styles(report),
        "problems": [_problem_data(problem, report.averaged, position) for problem in report.problems],
        "runs": [run_data(run, report.averaged, layers, hardware) for run in runs],
        "layers": layers.values,
        "hardware": hardware.values,
        "unfinished": [_unfinished_data(run) for run in report.others],
        "unread": [*report.left_out, *report.warnings],
    }


def _in_order(statuses: Iterable[str]) -> list[str]:
    return sorted(statuses, key=lambda status: _ORDER.index(status) if status in _ORDER else len(_ORDER))


def _styles(report: Report) -> dict[str, dict[str, str]]:
    chosen = styles(name for problem in report.problems for name in problem.methods)
    return {
        name: {"label": style.label, "colour": style.colour, "symbol": style.symbol}
        for name, style in chosen.items()
    }


def _problem_data(problem: Problem, averaged: Sequence[str], position: Mapping[int, int]) -> dict[str, object]:
    at = {id(point): index for index, point in enumerate(problem.points)}

    def places(marks: Iterable[Point | None]) -> list[int | None]:
        return [None if point is None else at[id(point)] for point in marks]

    own_fronts = {id(point) for method in problem.methods.values() for point in method.front}
    front = {id(point) for point in problem.front}
    any_method = next(iter(problem.methods.values()))  # the marks are the same for all
    float32 = problem.float32
    return {
        "title": problem.title,
        "headline": _headline_data(problem.headline),
        "worst": worst_shown(problem),
        "float32": float32
        and {
            "score": float32.score,
            "std": float32.std,
            "text": score_and_unit(problem.headline, float32.score, float32.std),
            "mb": megabytes(float32.mb),
        },
        "hypervolume": problem.hypervolume and f"{problem.hypervolume:.1f}",
        "within": list(any_method.within),
        "sizes": list(map(megabytes, any_method.at)),
        "points": [
            _point_data(point, averaged, position)
            | {"front": id(point) in own_fronts, "overall": id(point) in front}
            for point in problem.points
        ],
        "methods": [
            {
                "name": name,
                "points": len(method.points),
                "hypervolume": method.hypervolume,
                "area": NONE if method.hypervolume is None else f"{method.hypervolume:.1f}",
                "within": places(method.within.values()),
                "at": places(method.at.values()),
            }
            for name, method in problem.methods.items()
        ],
        "first": at[id(first_shown(problem))],
    }


def _headline_data(headline: Headline) -> dict[str, object]:
    """What the page's scripts need to know of a score: how to write it, and in which direction it is better."""
    texts = ("name", "float32_name", "label", "amount", "difference", "worse", "better")
    return {
        **{name: getattr(headline, name) for name in texts},
        "percent": headline.unit == PERCENT,
        "sign": headline.sign,
        "factor": headline.factor,
        "digits": headline.digits,
        "chance": headline.chance,
        "chance_text": score_and_unit(headline, headline.chance),
        "least_span": least_span(headline),
    }


def first_shown(problem: Problem) -> Point:
    """The smallest point within the smallest tolerance of float32; without any the best point."""
    nearest = min(problem.headline.tolerances, default=0.0)
    near = [point for method in problem.methods.values() if (point := method.within.get(nearest)) is not None]
    return min(near, key=lambda point: point.size) if near else max(problem.front, key=lambda point: point.goodness)


def _point_data(point: Point, averaged: Sequence[str], position: Mapping[int, int]) -> dict[str, object]:
    bits = [bits for run in point.runs if (bits := run.record.number("bits", "mean")) is not None]
    return {
        "method": point.method,
        "runs": [position[id(run)] for run in point.runs],
        "score": point.score,
        "std": point.score_std,
        "text": score_and_unit(point.headline, point.score, point.score_std),
        "mb": megabytes(point.size),
        "size": point.size,
        "size_std": point.size_std,
        "bits": mean_std(bits)[0] if bits else None,
        "settings": point.label,
        "overrides": [
            override
            for override in point.runs[0].overrides
            if override.partition("=")[0].lstrip("+") not in averaged
        ],
    }


def _unfinished_data(run: Run) -> dict[str, object]:
    return {
        "status": run.status,
        "folder": run.folder.name,
        "reason": run.reason,
        "epoch": run.record.epoch,
        "step": run.record.step,
        "command": run.command,
    }
