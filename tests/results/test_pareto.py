"""The front and its area, against their definitions and against moocore."""

from itertools import pairwise

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffq_exp.results.pareto import best_at, hypervolume, non_dominated, smallest_within

few = st.integers(1, 6)  # so that ties and duplicates are common
pairs = st.lists(st.tuples(few.map(lambda size: size / 4), few.map(lambda accuracy: accuracy / 7)), max_size=25)


def dominates(pair, other):
    return pair[0] <= other[0] and pair[1] >= other[1] and pair != other


@given(pairs)
def test_front_is_what_nothing_dominates(points):
    front = non_dominated(points)
    wanted = [at for at, pair in enumerate(points) if not any(dominates(other, pair) for other in points)]
    assert sorted(front) == wanted
    assert all(points[left][0] <= points[right][0] for left, right in pairwise(front))


@given(pairs, st.floats(0.3, 2.0), st.floats(0.0, 0.9))
def test_hypervolume_is_that_of_moocore(points, size, accuracy):
    ours = hypervolume(points, (size, accuracy))
    both_minimised = np.array([[np.log2(mb), -score] for mb, score in points]).reshape(-1, 2)
    reference = [np.log2(size), -accuracy]
    theirs = moocore.hypervolume(both_minimised, ref=reference) if points else 0.0
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(1.0, 0.9)], 0.0),  # as large as float32
        ([(0.5, 0.1)], 0.0),  # as good as chance
        ([(0.25, 0.9)], 1.6),  # two halvings, 0.8 above chance
        ([(0.25, 0.9), (0.25, 0.9), (0.5, 0.9)], 1.6),
        ([(0.25, 0.5), (0.5, 0.9)], 0.8 + 0.4),
    ],
)
def test_hypervolume_by_hand(points, area):
    assert hypervolume(points, (1.0, 0.1)) == pytest.approx(area)


POINTS = [(0.4, 0.99), (0.1, 0.95), (0.2, 0.985), (0.2, 0.98)]


@pytest.mark.parametrize(("accuracy", "at"), [(0.985, 2), (0.9851, 0), (0.9, 1), (0.995, None)])
def test_smallest_within(accuracy, at):
    assert smallest_within(POINTS, accuracy) == at


@pytest.mark.parametrize(("size", "at"), [(0.05, None), (0.1, 1), (0.2, 2), (0.3, 2), (9.0, 0)])
def test_best_at(size, at):
    assert best_at(POINTS, size) == at


def test_a_mean_of_seeds_is_on_its_threshold():
    mean = sum([0.1 + 0.2, 0.3, 0.3]) / 3
    assert smallest_within([(1.0, mean - 1e-16)], 0.3) == 0
    assert best_at([(0.1 + 0.2, 0.5)], 0.3) == 0
