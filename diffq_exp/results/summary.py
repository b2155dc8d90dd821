"""The comparison of finished runs: for each problem the front, its hypervolume, and the marks of each method.

A problem is a data set, a network and a headline. Terminal, tables, picture and page show the Report that is made
here, and compute nothing themselves.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..common.names import natural, unknown
from .discovery import UNREADABLE, Run
from .headline import Headline, is_number
from .pareto import best_at, hypervolume, non_dominated, smallest_within
from .points import Point, make_points, mean_std, varying
from .sweep_records import Sweep

SIZES = ("file", "true")
FRACTIONS = (64, 32, 16, 8, 4)  # of the float32 MB: sizes for which the best score is given
LONGEST_KEY = 200  # of those that a message names
LARGEST = 1e9  # score or size in MB, and the reciprocal of the smallest size
FLOAT32 = "none"  # the quantizer of the float32 network


@dataclass(frozen=True)
class Baseline:
    """The float32 network. score: of the headline; std: None of one run; mb: its stored size; runs: how many."""

    score: float
    std: float | None
    mb: float
    runs: int


@dataclass(frozen=True)
class MethodSummary:
    """A method. front: its own; hypervolume: see Problem.

    within: {0.5: smallest point that is at most 0.5 worse than float32}; at: {MB: best point of at most this size}.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    hypervolume: float | None
    within: Mapping[float, Point | None]
    at: Mapping[float, Point | None]


@dataclass(frozen=True)
class Problem:
    """A network, a data set and a headline. points: all, smallest first; front: over all methods.

    float32_mb: with the headline's chance the reference of the hypervolume, which is in the headline's shown unit
    times halvings of that size; None where chance is not known.
    """

    title: str
    headline: Headline
    points: tuple[Point, ...]
    float32: Baseline | None
    float32_mb: float
    methods: dict[str, MethodSummary]
    front: tuple[Point, ...]
    hypervolume: float | None


@dataclass(frozen=True)
class Report:
    """problems: of the finished runs; others: the runs that are not; size: which MB; averaged: which keys.

    by: the keys that tell methods apart.
    left_out: a line for each record that cannot be used; warnings: for runs that are compared and should not be.
    """

    problems: list[Problem]
    others: list[Run]
    sweep: Sweep | None
    size: str
    averaged: tuple[str, ...]
    by: tuple[str, ...]
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        """The finished runs that are in it."""
        return [run for problem in self.problems for point in problem.points for run in point.runs]


def make_report(
    runs: Sequence[Run],
    sweep: Sweep | None = None,
    size: str = "file",
    average_over: Sequence[str] = ("seed",),
    by: Sequence[str] = ("quantizer",),
    sizes: Sequence[float] | None = None,
) -> Report:
    """runs: in a sweep's report those of the sweep (runs_of). sizes: MB for which the best score is given."""
    groups, others, errors = defaultdict(list), list[Run](), list[str]()
    for run in runs:
        if (error := _error(run, size)) is not None:
            errors.append(f"{run.folder}: {error}; left out")
        elif run.status == "finished":
            groups[run.problem].append(run)
        else:
            others.append(run)
    titles = Counter((dataset, model) for dataset, model, _ in groups)
    named = sorted(groups.items(), key=lambda item: (natural(item[0][0]), natural(item[0][1]), item[0][2]))
    problems = []
    for (dataset, model, _), group in named:
        headline = _headline(group)
        title = ", ".join([dataset, model, *([headline.label] if titles[dataset, model] > 1 else [])])
        points = make_points(group, size, average_over, by)
        problems.append(_problem(title, headline, group, points, sizes))
    warnings = _mixed_data([run for group in groups.values() for run in group])
    return Report(problems, others, sweep, size, tuple(average_over), tuple(by), errors, warnings)


def check_key(key: str, runs: Iterable[Run]) -> None:
    """Raises: ValueError that names the nearest key, where none of the runs has this one."""
    runs = list(runs)
    if runs and all(run.value(key) is None for run in runs):
        known = {name for run in runs for name in run.own if len(name) <= LONGEST_KEY}
        raise ValueError(unknown("run has a key", key, sorted(known)))


def keys_that_vary(report: Report) -> list[str]:
    """For tables of single runs: the keys with several values in the whole report."""
    return varying([*report.runs, *report.others])


def _error(run: Run, size: str) -> str | None:
    """Why a report cannot use a run's record, or None."""
    if run.status == UNREADABLE:
        return run.reason
    if run.status != "finished":
        return None
    if not (run.config and run.choices):
        return "its result.json has no config, as those of older versions"
    if run.score is None or abs(run.score) > LARGEST:
        return f"its result.json has no test {run.headline.label}"
    if not all(is_number(run.size(kind), 1 / LARGEST, LARGEST) for kind in (size, "float32")):
        return f"its result.json has no size_mb.{size} or no size_mb.float32"
    if run.record.headline is None and run.headline.chance is None:
        return "its result.json does not say how many classes there are"
    return None


def _mixed_data(runs: Sequence[Run]) -> list[str]:
    """A line for each configuration of a data set whose examples changed from one run to another."""
    seen: defaultdict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        if isinstance(digest := run.record.data.get("digest"), dict):
            examples = str(sorted((part, value) for part, value in digest.items() if part != "file_times"))
            seen[json.dumps(run.config.get("dataset"), sort_keys=True)].setdefault(examples, run)
    return [
        f"{' and '.join(str(run.folder) for run in different.values())}: between them the data have changed"
        for different in seen.values()
        if len(different) > 1
    ]


def _headline(runs: Sequence[Run]) -> Headline:
    """The headline of the runs of a problem; of several chance levels the worst."""
    known = [run.headline for run in runs if run.headline.chance is not None]
    return min(known, key=lambda headline: headline.goodness(headline.chance or 0), default=runs[0].headline)


def _problem(
    title: str, headline: Headline, runs: Sequence[Run], points: Sequence[Point], sizes: Sequence[float] | None
) -> Problem:
    float32_mb = max(run.size("float32") or 0 for run in runs)
    float32 = _float32(runs, points)
    if sizes is None:
        sizes = [mb for part in FRACTIONS if (mb := float32_mb / part) >= points[0].size]
    methods = {
        name: _method([point for point in points if point.method == name], headline, float32_mb, float32, sizes)
        for name in sorted({point.method for point in points}, key=lambda name: (name == FLOAT32, natural(name)))
    }
    front = _front(points)
    volume = _volume(front, headline, float32_mb)
    return Problem(title, headline, tuple(points), float32, float32_mb, methods, front, volume)


def _method(
    points: Sequence[Point],
    headline: Headline,
    float32_mb: float,
    float32: Baseline | None,
    sizes: Sequence[float],
) -> MethodSummary:
    pairs = [point.pair for point in points]
    within = {}
    for worse_by in headline.tolerances:
        least = None if float32 is None else headline.goodness(float32.score) - worse_by / headline.factor
        within[worse_by] = _pick(points, None if least is None else smallest_within(pairs, least))
    at = {size: _pick(points, best_at(pairs, size)) for size in sizes}
    return MethodSummary(tuple(points), _front(points), _volume(points, headline, float32_mb), within, at)


def _float32(runs: Sequence[Run], points: Sequence[Point]) -> Baseline | None:
    """The best float32 configuration; without any, the networks that post-training runs began from."""
    plain = [point for point in points if point.runs[0].choices.get("quantizer") == FLOAT32]
    if plain:
        best = max(plain, key=lambda point: point.goodness)
        return Baseline(best.score, best.score_std, best.size, len(best.runs))
    sources = {
        str(run.config.get("init_from", run.seed)): score
        for run in runs
        if run.value("quantizer.training.after")
        and (score := run.record.number("test", run.headline.float32_name)) is not None
    }
    if not sources:
        return None
    mb = max(run.size("float32") or 0 for run in runs)
    return Baseline(*mean_std(list(sources.values())), mb, len(sources))


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(points[at] for at in non_dominated([point.pair for point in points]))


def _volume(points: Sequence[Point], headline: Headline, float32_mb: float) -> float | None:
    if headline.chance is None:
        return None
    reference = float32_mb, headline.goodness(headline.chance)
    return headline.factor * hypervolume([point.pair for point in points], reference)


def _pick(points: Sequence[Point], at: int | None) -> Point | None:
    return None if at is None else points[at]
