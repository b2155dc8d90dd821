"""Runs that differ in the averaged keys only, the seed as a rule, are one point with mean and spread."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from .discovery import Run
from .headline import Headline


@dataclass(frozen=True)
class Point:
    """A configuration. score: the mean of the headline; size: MB.

    score_std, size_std: sample standard deviations, None where there is one run.
    keys: its values of the keys that vary within the problem, {"bits": 3}.
    """

    method: str
    runs: tuple[Run, ...]
    headline: Headline
    score: float
    score_std: float | None
    size: float
    size_std: float | None
    keys: dict[str, object] = field(hash=False)

    @property
    def goodness(self) -> float:
        """The score in the direction in which higher is better."""
        return self.headline.goodness(self.score)

    @property
    def pair(self) -> tuple[float, float]:
        """(MB, goodness), as in pareto.py."""
        return self.size, self.goodness

    @property
    def label(self) -> str:
        """ "bits=3 lr=0.01" """
        return " ".join(f"{key}={shown(value)}" for key, value in self.keys.items())


def make_points(
    runs: Sequence[Run],
    size: str = "file",
    average_over: Sequence[str] = ("seed",),
    by: Sequence[str] = ("quantizer",),
) -> list[Point]:
    """The points of one problem, smallest first. All runs are finished and have a score and this size."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[_identity(run, average_over, by)].append(run)
    names = [name for name in varying(runs) if name not in (*average_over, *by, "init_from")]
    return sorted((_point(group, size, by, names) for group in groups.values()), key=lambda point: point.pair)


def method(run: Run, by: Sequence[str]) -> str:
    """The values of the keys that tell methods apart, joined; where a run has none of them, its quantizer."""
    values = {key: run.value(key) for key in by}
    names = [
        value if isinstance(value, str) and (key == "quantizer" or value != "none") else f"{key}={shown(value)}"
        for key, value in values.items()
        if value is not None
    ]
    return " ".join(names) or str(run.choices.get("quantizer", "?"))


def varying(runs: Iterable[Run]) -> list[str]:
    """Keys with several values among these runs; a node's entries are compared among runs of the same choice."""
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for run in runs:
        for key, value in run.own.items():
            node, dot, _ = key.partition(".")
            seen[key][run.choices.get(node, "") if dot else ""].add(json.dumps(value))
    return [key for key, values in seen.items() if any(len(texts) > 1 for texts in values.values())]


def shown(value: object) -> str:
    """A value as it is typed on the command line: true, 0.3, 3."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _identity(run: Run, average_over: Sequence[str], by: Sequence[str]) -> str:
    """The same text for the runs of one point. A run that began from another one stands for the other's point."""
    chosen = {key: value for key, value in run.own.items() if not _covered(key, average_over)}
    if not any(override.lstrip("+").startswith("init_from=") for override in run.overrides):
        chosen.pop("init_from", None)  # of a post-training run: the float32 network of the same values
    elif run.source is not None:
        chosen["init_from"] = _identity(run.source, average_over, by)
    return json.dumps([method(run, by), chosen], sort_keys=True)


def _covered(key: str, averaged: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in averaged)


def _point(runs: Sequence[Run], kind: str, by: Sequence[str], names: Sequence[str]) -> Point:
    runs = sorted(runs, key=lambda run: (run.seed if isinstance(run.seed, int) else 0, run.folder.name))
    score, score_std = mean_std([run.score for run in runs if run.score is not None])
    size, size_std = mean_std([size for run in runs if (size := run.size(kind)) is not None])
    keys = {name: runs[0].own[name] for name in names if name in runs[0].own}
    name, headline = method(runs[0], by), runs[0].headline
    return Point(name, tuple(runs), headline, score, score_std, size, size_std, keys)


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for that of a single value."""
    return fmean(values), stdev(values) if len(values) > 1 else None
