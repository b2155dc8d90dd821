"""What a set of (MB, accuracy) pairs is worth: pure functions, accuracy up and MB down. No run, no config in here.

A pair dominates another if it is neither larger nor less accurate, and better in one of the two. Equal pairs do not
dominate each other: both stay on the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log2
from typing import TypeAlias

Pair: TypeAlias = tuple[float, float]  # (MB > 0, accuracy)
_ROUNDING = 1e-9  # a mean of three runs is on a threshold in spite of its last bits


def non_dominated(pairs: Sequence[Pair]) -> list[int]:
    """Positions of the pairs that no other dominates, smallest MB first."""
    front: list[int] = []
    best = -inf  # accuracy of all that is smaller
    for at in sorted(range(len(pairs)), key=lambda at: (pairs[at][0], -pairs[at][1])):
        if pairs[at][1] > best or (front and pairs[at] == pairs[front[-1]]):
            front.append(at)
            best = pairs[at][1]
    return front


def hypervolume(pairs: Sequence[Pair], reference: Pair) -> float:
    """Area that the pairs dominate above the reference's accuracy and below its MB, which are on a log2 axis.

    Unit: accuracy x halvings of the reference's size. Pairs not better than the reference in both add nothing.
    """
    limit, floor = reference
    area = 0.0
    for at in non_dominated(pairs):
        size, accuracy = pairs[at]
        if size < limit and accuracy > floor:
            area += (accuracy - floor) * log2(limit / size)
            floor = accuracy
    return area


def smallest_within(pairs: Sequence[Pair], accuracy: float) -> int | None:
    """Position of the smallest pair of at least this accuracy; of equals the more accurate. None: there is none."""
    good = [at for at, pair in enumerate(pairs) if pair[1] >= accuracy - _ROUNDING]
    return min(good, key=lambda at: (pairs[at][0], -pairs[at][1]), default=None)


def best_at(pairs: Sequence[Pair], size: float) -> int | None:
    """Position of the most accurate pair of at most this size; of equals the smaller. None: all are larger."""
    small = [at for at, pair in enumerate(pairs) if pair[0] <= size * (1 + _ROUNDING)]
    return max(small, key=lambda at: (pairs[at][1], -pairs[at][0]), default=None)
