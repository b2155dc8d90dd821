"""Fronts and areas of (MB, goodness) pairs: pure functions that know no runs.

Lower MB and higher goodness are better.

A pair dominates another if it is neither larger nor worse, and better in one of the two. Equal pairs do not
dominate each other: both stay on the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log2
from typing import TypeAlias

Pair: TypeAlias = tuple[float, float]  # (MB > 0, goodness)
_ROUNDING = 1e-9  # a mean of three runs counts as equal to a threshold in spite of its last bits


def non_dominated(pairs: Sequence[Pair]) -> list[int]:
    """Positions of the pairs that no other dominates, smallest MB first."""
    front: list[int] = []
    best = -inf  # goodness of all that is smaller
    for at in sorted(range(len(pairs)), key=lambda at: (pairs[at][0], -pairs[at][1])):
        if pairs[at][1] > best or (front and pairs[at] == pairs[front[-1]]):
            front.append(at)
            best = pairs[at][1]
    return front


def hypervolume(pairs: Sequence[Pair], reference: Pair) -> float:
    """Area that the pairs dominate above the reference's goodness and below its MB, which are on a log2 axis.

    Unit: goodness x halvings of the reference's size. Pairs not better than the reference in both add nothing.
    """
    limit, floor = reference
    area = 0.0
    for at in non_dominated(pairs):
        size, goodness = pairs[at]
        if size < limit and goodness > floor:
            area += (goodness - floor) * log2(limit / size)
            floor = goodness
    return area


def smallest_within(pairs: Sequence[Pair], goodness: float) -> int | None:
    """Position of the smallest pair of at least this goodness; of equal sizes the better. None: there is none."""
    near = [at for at, pair in enumerate(pairs) if pair[1] >= goodness - _ROUNDING]
    return min(near, key=lambda at: (pairs[at][0], -pairs[at][1]), default=None)


def best_at(pairs: Sequence[Pair], size: float) -> int | None:
    """Position of the best pair of at most this size; of equals the smaller. None: all are larger."""
    small = [at for at, pair in enumerate(pairs) if pair[0] <= size * (1 + _ROUNDING)]
    return max(small, key=lambda at: (pairs[at][1], -pairs[at][0]), default=None)
