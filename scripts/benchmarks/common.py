"""What the parts share: where and how to measure, rounds that pair what is compared, and rows with their goals.

A ratio to the plain network is taken within a round, in which each variant runs once and the order rotates from
round to round: what else the machine does then weighs on all of them alike. Shown are medians and quartiles.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

SKIPPED = "skipped"
THEIRS = importlib.util.find_spec("diffq") is not None
MB = 2**20
Result = TypeVar("Result")


@dataclass(frozen=True)
class Context:
    """device: of the steps. quick: tiny sizes, to see that all works. diffq: whether to measure it too."""

    device: torch.device
    quick: bool = False
    diffq: bool = THEIRS
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """A line of progress on stderr."""
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Row:
    """A line of the table, as shown; `detail` has the numbers behind it.

    diffq: what `diffq` takes, "skipped", or "" where it has nothing of the kind. met: None where there is no goal.
    """

    what: str
    here: str
    diffq: str = ""
    goal: str = ""
    met: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What a part found; `data` goes to the JSON, `notes` below its table."""

    rows: list[Row]
    data: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the values of all rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return Spread(values[0], values[0], values[0], 1)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(middle, low, high, len(values))

    def show(self, unit: str = "") -> str:
        return f"{self.median:.3f}{unit} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Rounds:
    """`warm` rounds that do not count, then at least `least`, until `seconds` are spent or `most` are done."""

    warm: int
    least: int
    most: int
    seconds: float

    def run(self, calls: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
        """The results of each call, one a round; the order of the calls rotates."""
        names = list(calls)
        results: dict[str, list[Result]] = {name: [] for name in names}
        for _ in range(self.warm):
            for name in names:
                calls[name]()
        started = time.perf_counter()
        for turn in range(self.most):
            spent = time.perf_counter() - started
            if turn >= self.least and spent * (turn + 1) / turn > self.seconds:  # the next would be too much
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                results[name].append(calls[name]())
        return results


ONCE = Rounds(warm=0, least=1, most=1, seconds=0)


class Clock:
    """Marks in the work of a device, and the seconds between two of them."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self._cuda:
            torch.cuda.synchronize()

    def mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(self, start: Any, stop: Any) -> float:
        if not self._cuda:
            return float(stop - start)
        stop.synchronize()
        return float(start.elapsed_time(stop)) / 1e3


def over(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """The ratios within each round."""
    return Spread.of([value / other for value, other in zip(values, reference, strict=True)])


def beyond(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """The differences within each round."""
    return Spread.of([value - other for value, other in zip(values, reference, strict=True)])


def at_most(value: float, limit: float, unit: str = "") -> dict[str, Any]:
    """The keywords of a Row for a goal of `limit` or less."""
    return {"goal": f"<= {limit:g}{unit}", "met": value <= limit}
