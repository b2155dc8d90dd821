"""The report as one more run in W&B, job type `report`: the table of all runs, the fronts as charts, the page.

It is tracked as its runs are: the .hydra/config.yaml of the newest of them says where and how. As in a run, W&B can
neither fail nor hang the report (tracking/wandb_tracker.py). Nothing here imports torch.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ..tracking.limits import shortened
from ..tracking.wandb_tracker import WandbTracker
from .discovery import Run
from .looks import Style, styles
from .plots import PANELS, SIZE_LABEL
from .points import Point
from .run_files import RESULT
from .summary import MethodSummary, Problem, Report
from .tables import run_rows, score_text

_TAKEN_OVER = ("project", "entity", "mode", "timeout_seconds")
_ID = "report-"
_STAGING = ("WANDB_DATA_DIR", "WANDB_CACHE_DIR")


def log_report(report: Report, out: Path) -> list[str]:
    """Log a report whose page is written; -> a line that says where, none where its runs are not tracked.

    Writes to out/wandb, where it takes the place of an earlier report. Never raises.
    """
    try:
        settings = _tracking([*report.runs, *report.others])
        return [] if settings is None else _log(report, out, settings)
    except Exception as error:
        return [f"W&B: the report is not logged ({type(error).__name__}: {' '.join(str(error).split())})"]


def _log(report: Report, out: Path, settings: dict[str, Any]) -> list[str]:
    sweep = shortened(report.sweep.name, "group") if report.sweep else None
    tracker = WandbTracker(**settings, group=sweep, job_type="report")
    config = {"size": report.size, "averaged": list(report.averaged), "runs": len(report.runs)}
    if report.sweep is not None:
        config |= {"sweep": report.sweep.name, "command": report.sweep.command}
    name = f"{_ID}{secrets.token_hex(4)}"
    volumes = {_key(problem): _volumes(problem) for problem in report.problems}
    with _staged_in(out / "wandb" / f"files-{name}"):
        tracker.start(out, name, f"report {sweep or ''}".strip(), config, [])
        if tracker.url_or_dir is not None:
            tracker.log({"epoch": 0, **_media(report)})
        tracker.finish({"hypervolume": volumes}, out / "index.html", 0, kind="report")
    if tracker.url_or_dir is None:
        return []
    _drop_earlier(out, name)
    return [f"W&B: {tracker.url_or_dir}"]


def _tracking(runs: Sequence[Run]) -> dict[str, object] | None:
    """Arguments of a tracker like that of the newest run with a config; None where W&B has no part in it."""
    written = [(path.stat().st_mtime, run) for run in runs if (path := run.folder / RESULT).is_file()]
    for _, run in sorted(written, key=lambda pair: pair[0], reverse=True):
        config = run.folder / ".hydra" / "config.yaml"
        if config.is_file():
            node = yaml.safe_load(config.read_bytes()).get("tracking") or {}
            if not str(node.get("_target_")).endswith(".WandbTracker"):
                return None
            return {key: node[key] for key in _TAKEN_OVER if key in node and "${" not in str(node[key])}
    return None


def _media(report: Report) -> dict[str, object]:
    import wandb
    from plotly.graph_objects import Figure  # type: ignore[import-untyped]

    columns, rows = run_rows(report)
    table = wandb.Table(columns=[*columns], data=rows, allow_mixed_types=True)
    figures = {_key(problem): Figure(front_chart(problem, report.size)) for problem in report.problems[:PANELS]}
    return {"runs": table, **{f"front/{name}": wandb.Plotly(figure) for name, figure in figures.items()}}


def _key(problem: Problem) -> str:
    """A name that a file may have too: digits-digits_cnn."""
    return re.sub(r"[^\w.-]", "_", problem.title.replace(", ", "-"))


def front_chart(problem: Problem, kind: str) -> dict[str, object]:
    """A figure of plotly: a line and its markers for each front, markers alone for the points behind it."""
    looks = styles(problem.methods)
    traces = [_trace(method.front, looks[name], "lines+markers") for name, method in problem.methods.items()]
    for name, method in problem.methods.items():
        traces.append({**_trace(_behind(method), looks[name], "markers"), "opacity": 0.4, "showlegend": False})
    layout: dict[str, object] = {
        "title": {"text": problem.title},
        "xaxis": {"type": "log", "title": {"text": SIZE_LABEL[kind]}},
        "yaxis": {"title": {"text": problem.headline.axis_title}},
    }
    if problem.float32 is not None:
        level = problem.headline.shown(problem.float32.score)
        line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level}
        layout["shapes"] = [{**line, "line": {"dash": "dash", "width": 1}}]
    return {"data": traces, "layout": layout}


def _trace(points: Sequence[Point], look: Style, mode: str) -> dict[str, object]:
    return {
        "type": "scatter",
        "mode": mode,
        "name": look.label,
        "x": [point.size for point in points],
        "y": [point.headline.shown(point.score) for point in points],
        "text": [_hover(point) for point in points],
        "marker": {"color": look.colour, "symbol": look.symbol, "size": 8},
        "line": {"color": look.colour},
    }


def _hover(point: Point) -> str:
    return f"{point.label} ({score_text(point)} {point.headline.suffix}, {len(point.runs)} runs)"


def _behind(method: MethodSummary) -> list[Point]:
    return [point for point in method.points if point not in method.front]


def _volumes(problem: Problem) -> dict[str, float | None]:
    return {name: method.hypervolume for name, method in problem.methods.items()}


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """W&B copies a table aside, where `wandb sync` finds it later: there, instead of into the home folder."""
    before = {name: os.environ.get(name) for name in _STAGING}
    os.environ.update(dict.fromkeys(_STAGING, str(folder.absolute())))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _drop_earlier(out: Path, kept: str) -> None:
    """Delete the local segments of earlier reports in this folder, and what they had staged."""
    for folder in (out / "wandb").glob(f"*-{_ID}*"):
        if not folder.name.endswith(kept) and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
