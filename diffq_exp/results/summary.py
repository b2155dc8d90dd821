"""What finished runs say together: per network and data set the front, its hypervolume, and each method's marks.

All that is shown (terminal, tables, picture, page) is read off the Report made here; nothing is computed again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .discovery import UNREADABLE, Run, Sweep, unknown
from .pareto import best_at, hypervolume, non_dominated, smallest_within
from .points import Point, make_points, mean_std, varying

SIZES = ("file", "true")
WITHIN = (0.5, 1.0)  # points of accuracy below float32
FRACTIONS = (64, 32, 16, 8, 4)  # of the float32 MB: where the accuracy is read off
HYPERVOLUME_UNIT = "accuracy points x halvings of the float32 size, above chance"
FLOAT32 = "none"  # the quantizer of the float32 network


@dataclass(frozen=True)
class Baseline:
    """The float32 network. accuracy: 0..1; std: None of one run; mb: its stored size; runs: how many."""

    accuracy: float
    std: float | None
    mb: float
    runs: int


@dataclass(frozen=True)
class MethodSummary:
    """One method. front: its own; hypervolume: in HYPERVOLUME_UNIT.

    within: {0.5: smallest point at most 0.5 points below float32}; at: {MB: most accurate point up to there}.
    """

    points: tuple[Point, ...]
    front: tuple[Point, ...]
    hypervolume: float
    within: Mapping[float, Point | None]
    at: Mapping[float, Point | None]


@dataclass(frozen=True)
class Problem:
    """One network and data set. points: all, smallest first; front: over all methods; chance: 1 / classes.

    float32_mb: the reference of the hypervolume.
    """

    dataset: str
    model: str
    points: tuple[Point, ...]
    float32: Baseline | None
    chance: float
    float32_mb: float
    methods: dict[str, MethodSummary]
    front: tuple[Point, ...]
    hypervolume: float

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.model}"


@dataclass(frozen=True)
class Report:
    """problems: of the finished runs; others: the runs that are not; size: which MB; averaged: which keys."""

    problems: list[Problem]
    others: list[Run]
    sweep: Sweep | None
    size: str
    averaged: tuple[str, ...]
    problems_with_reading: list[str] = field(default_factory=list)

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
    """runs: in a sweep's report those of the sweep (runs_of). sizes: MB at which the accuracy is read off."""
    groups, others, faults = defaultdict(list), list[Run](), list[str]()
    for run in runs:
        if (fault := _fault(run, size)) is not None:
            faults.append(f"{run.folder}: {fault}; left out")
        elif run.status == "finished":
            groups[run.problem].append(run)
        else:
            others.append(run)
    problems = [
        _problem(*name, group, make_points(group, size, average_over, by), sizes)
        for name, group in sorted(groups.items())
    ]
    return Report(problems, others, sweep, size, tuple(average_over), faults)


def check_key(key: str, runs: Iterable[Run]) -> None:
    """Raises: ValueError that names the nearest key, where none of the runs has this one."""
    runs = list(runs)
    if runs and all(run.value(key) is None for run in runs):
        known = {name for run in runs for name in run.own}
        raise ValueError(unknown("run has a key", key, sorted(known)))


def keys_that_vary(report: Report) -> list[str]:
    """For tables of single runs: the keys with several values in the whole report."""
    return varying([*report.runs, *report.others])


def _fault(run: Run, size: str) -> str | None:
    """Why a report cannot use a run's record, or None."""
    if run.status == UNREADABLE:
        return run.reason
    if run.status != "finished":
        return None
    if not (run.config and run.choices):
        return "its result.json has no config, as those of older versions"
    if run.score is None:
        return "its result.json has no test accuracy"
    if not all((run.size(kind) or 0) > 0 for kind in (size, "float32")):
        return f"its result.json has no size_mb.{size} or no size_mb.float32"
    return (
        None
        if (run.record.number("data", "classes") or 0) >= 1
        else "its result.json does not say how many classes there are"
    )


def _problem(
    dataset: str,
    model: str,
    headline: str,
    runs: Sequence[Run],
    points: Sequence[Point],
    sizes: Sequence[float] | None,
) -> Problem:
    chance = 1 / max(run.record.number("data", "classes") or 1 for run in runs)
    float32_mb = max(run.size("float32") or 0 for run in runs)
    float32 = _float32(runs, points)
    if sizes is None:
        sizes = [mb for part in FRACTIONS if (mb := float32_mb / part) >= points[0].size]
    methods = {
        name: _method([point for point in points if point.method == name], chance, float32_mb, float32, sizes)
        for name in sorted({point.method for point in points}, key=lambda name: (name == FLOAT32, name))
    }
    front = _front(points)
    volume = _volume(front, chance, float32_mb)
    return Problem(dataset, model, tuple(points), float32, chance, float32_mb, methods, front, volume)


def _method(
    points: Sequence[Point], chance: float, float32_mb: float, float32: Baseline | None, sizes: Sequence[float]
) -> MethodSummary:
    pairs = [point.pair for point in points]
    within = {
        below: _pick(points, None if float32 is None else smallest_within(pairs, float32.accuracy - below / 100))
        for below in WITHIN
    }
    at = {size: _pick(points, best_at(pairs, size)) for size in sizes}
    return MethodSummary(tuple(points), _front(points), _volume(points, chance, float32_mb), within, at)


def _float32(runs: Sequence[Run], points: Sequence[Point]) -> Baseline | None:
    """The best float32 configuration; without one, what post-training runs say of the networks they began from."""
    plain = [point for point in points if point.runs[0].choices.get("quantizer") == FLOAT32]
    if plain:
        best = max(plain, key=lambda point: point.accuracy)
        return Baseline(best.accuracy, best.accuracy_std, best.size, len(best.runs))
    sources = {
        str(run.config.get("init_from", run.seed)): accuracy
        for run in runs
        if run.value("quantizer.training.after") and (accuracy := run.record.number("test", "float32_accuracy"))
    }
    if not sources:
        return None
    mb = max(run.size("float32") or 0 for run in runs)
    return Baseline(*mean_std(list(sources.values())), mb, len(sources))


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(points[at] for at in non_dominated([point.pair for point in points]))


def _volume(points: Sequence[Point], chance: float, float32_mb: float) -> float:
    return 100 * hypervolume([point.pair for point in points], (float32_mb, chance))


def _pick(points: Sequence[Point], at: int | None) -> Point | None:
    return None if at is None else points[at]
