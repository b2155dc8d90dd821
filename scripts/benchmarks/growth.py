"""How the time that a quantizer adds to a step grows: with the weights, with the tensors, with the group size.

The network is a sum of its weights, so that next to nothing but the quantizer is measured: noise in the forward,
its gradient, model_size() and the optimizer of the logits, minus the plain network's step of the same round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from .common import SKIPPED, Context, Part, Rounds, Row, beyond
from .variants import HERE, PLAIN, THEIRS, Trainee, Variant, wanted

MILLION = 10**6
WHOLE = 64  # tensors have a multiple of so many weights, so that all groups are full ones
STEEPEST = 1.1  # exponent of the weights that still counts as linear
FLATTEST = 1.25  # ratio of the time with the most tensors to that with the fewest that still counts as flat

ROUNDS = Rounds(warm=1, least=3, most=15, seconds=2.5)


@dataclass(frozen=True)
class Axes:
    """What is varied; else `usual` weights in `few` tensors, groups of 8. Beyond `theirs` weights, no diffq."""

    weights: Sequence[int] = (MILLION, 3 * MILLION, 10 * MILLION, 30 * MILLION, 100 * MILLION)
    tensors: Sequence[int] = (10, 30, 100, 300, 1000)
    groups: Sequence[int] = (1, 2, 4, 8, 16, 64, 0)
    usual: int = 10 * MILLION
    few: int = 10
    theirs: int = 30 * MILLION
    rounds: Rounds = ROUNDS

    def points(self) -> dict[str, list[Point]]:
        """Panel -> what is measured."""
        return {
            "weights": [Point(count, self.few, 8) for count in self.weights],
            "tensors": [Point(self.usual, count, 8) for count in self.tensors],
            "group size": [Point(self.usual, self.few, size) for size in self.groups],
        }


FULL = Axes()
QUICK = Axes(
    weights=(6400, 64000),
    tensors=(10, 20),
    groups=(1, 8, 0),
    usual=64000,
    theirs=64000,
    rounds=Rounds(warm=1, least=2, most=2, seconds=0),
)


@dataclass(frozen=True)
class Point:
    """A network: weights in all, in equal tensors."""

    weights: int
    tensors: int
    group_size: int

    def at(self, panel: str) -> int:
        return {"weights": self.weights, "tensors": self.tensors, "group size": self.group_size}[panel]


class Weights(nn.Module):
    """(entries,) weights, as a sum."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(entries) * 0.05)

    def forward(self, scale: Tensor) -> Tensor:
        return (self.weight * scale).sum()


class SumOfWeights(nn.Module):
    """As many tensors of the same size; () -> ()."""

    def __init__(self, point: Point) -> None:
        super().__init__()
        entries = max(point.weights // point.tensors // WHOLE, 1) * WHOLE
        self.parts = nn.ModuleList(Weights(entries) for _ in range(point.tensors))

    def forward(self, scale: Tensor) -> Tensor:
        return torch.stack([part(scale) for part in self.parts]).sum()


def growth(context: Context) -> Part:
    """Rows for the two laws; the curves, {panel: {"here" or "diffq": [{"at", "added_ms", ...}]}}, in the data."""
    axes = QUICK if context.quick else FULL
    measured: dict[Point, dict[str, dict[str, float]]] = {}
    curves: dict[str, dict[str, list[dict[str, float]]]] = {}
    for panel, points in axes.points().items():
        curves[panel] = {HERE: [], THEIRS: []}
        for point in points:
            if point not in measured:
                context.say(f"growth: {point.weights} weights, {point.tensors} tensors, group {point.group_size}")
                measured[point] = added(context, point, axes)
            for whose, found in measured[point].items():
                curves[panel][whose].append({"at": point.at(panel), **found})
    rows = [_exponent_row(curves["weights"], context.diffq), _tensors_row(curves["tensors"], context.diffq)]
    rows += [_cost_row(panel, curves[panel], context.diffq) for panel in curves]
    return Part(rows, {"curves": curves, "weights": axes.usual, "tensors": axes.few, "group_size": 8})


def added(context: Context, point: Point, axes: Axes) -> dict[str, dict[str, float]]:
    """whose -> median and quartiles of the milliseconds that a quantizer adds to the step."""
    torch.manual_seed(0)
    base, scale = SumOfWeights(point).to(context.device), torch.ones((), device=context.device)
    variants = [Variant(PLAIN), Variant(HERE, group_size=point.group_size)]
    if point.weights <= axes.theirs:
        variants.append(Variant(THEIRS, group_size=point.group_size))
    trainees = {
        one.whose: Trainee(one, base, lambda model: model(scale), context.device, min_size=0, train_weights=False)
        for one in wanted(context, *variants)
    }
    taken = axes.rounds.run({whose: one.timed for whose, one in trainees.items()})
    seconds = {whose: [one.step for one in steps] for whose, steps in taken.items()}
    found = {}
    for whose, values in seconds.items():
        if whose != PLAIN:
            spread = beyond(values, seconds[PLAIN])
            low, high = 1e3 * spread.low, 1e3 * spread.high
            found[whose] = {"added_ms": 1e3 * spread.median, "low": low, "high": high, "rounds": spread.rounds}
    return found


def exponent(curve: Sequence[dict[str, float]]) -> float | None:
    """Slope of the line of least squares through the logarithms; None where a time is not above zero."""
    pairs = [(point["at"], point["added_ms"]) for point in curve]
    if len(pairs) < 2 or min(time for _, time in pairs) <= 0:
        return None
    along, up = ([math.log(value) for value in values] for values in zip(*pairs, strict=True))
    middle, height = fmean(along), fmean(up)
    covariance = sum((x - middle) * (y - height) for x, y in zip(along, up, strict=True))
    return covariance / sum((x - middle) ** 2 for x in along)


def last_to_first(curve: Sequence[dict[str, float]]) -> float | None:
    """Ratio of the added times; None where the first is not above zero."""
    if not curve or curve[0]["added_ms"] <= 0:
        return None
    return curve[-1]["added_ms"] / curve[0]["added_ms"]


Curves = dict[str, list[dict[str, float]]]


def _exponent_row(curves: Curves, diffq: bool) -> Row:
    ours, theirs = exponent(curves[HERE]), exponent(curves[THEIRS])
    steps = [exponent(pair) for pair in pairwise(curves[HERE])]
    what = f"growth: exponent of the time added, {_range(curves[HERE])} weights in 10 tensors, group 8"
    detail = {"exponent": ours, "diffq": theirs, "between_neighbours": steps}
    return Row(what, _shown(ours), _beside(theirs, diffq), **_met(ours, STEEPEST), detail=detail)


def _tensors_row(curves: Curves, diffq: bool) -> Row:
    ours, theirs = last_to_first(curves[HERE]), last_to_first(curves[THEIRS])
    first, last = (f"{curves[HERE][at]['at']:,.0f}" for at in (0, -1))
    what = f"growth: time added with {last} tensors, over that with {first}, of the same weights"
    return Row(
        what, _shown(ours), _beside(theirs, diffq), **_met(ours, FLATTEST), detail={"ratio": ours, "diffq": theirs}
    )


def _cost_row(panel: str, curves: Curves, diffq: bool) -> Row:
    """All the times of a panel, without a goal."""

    def times(curve: list[dict[str, float]]) -> str:
        return ", ".join(f"{point['added_ms']:.1f}" for point in curve)

    beside = times(curves[THEIRS]) if curves[THEIRS] else ("" if diffq else SKIPPED)
    labels = ", ".join(f"{point['at']:,.0f}".replace(",", "\u202f") for point in curves[HERE])
    return Row(f"growth: ms added at {panel} {labels}", times(curves[HERE]), beside)


def _range(curve: Sequence[dict[str, float]]) -> str:
    return " to ".join(f"{curve[at]['at'] / MILLION:g} M" for at in (0, -1))


def _shown(value: float | None) -> str:
    return "not above the noise of this run" if value is None else f"{value:.2f}"


def _beside(value: float | None, diffq: bool) -> str:
    return _shown(value) if diffq else SKIPPED


def _met(value: float | None, limit: float) -> dict[str, Any]:
    return {"goal": f"<= {limit:g}", "met": value is not None and value <= limit}
