"""The axes of the picture: every point is on them, broken runs press nothing, labels are round and apart."""

from dataclasses import replace
from itertools import pairwise

import pytest
from helpers.made_runs import TEXT, made_run
from hypothesis import given
from hypothesis import strategies as st

from diffq_exp.results.axes import Scale, scale_of, ticks, worst_shown
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.summary import make_report


def problem_of(outputs):
    return make_report(find_runs([outputs])).problems[0]


def accuracies(outputs, values, method="qat"):
    for number, value in enumerate(values):
        made_run(outputs, [f"quantizer={method}", f"bits={number + 2}"], accuracy=value, mb=0.05 * (number + 1))
    return problem_of(outputs)


def text_runs(outputs, scores):
    for number, score in enumerate(scores):
        overrides = [*TEXT, "quantizer=qat", f"bits={number + 2}"]
        made_run(outputs, overrides, bits_per_byte=score, mb=0.05 * (number + 1))
    return problem_of(outputs)


def heights(problem):
    """Of each point, from the worst end of the axis, 0, to the best, 1."""
    scale = scale_of(problem)
    low, top = (float(scale.forward(end)) for end in (scale.lowest, scale.top))
    shown = [problem.headline.factor * point.goodness for point in problem.points]
    return [(float(scale.forward(value)) - low) / (top - low) for value in shown], scale


@pytest.mark.parametrize(
    "values", [[0.3, 0.981, 0.985, 0.990, 0.994], [0.1, 0.2, 0.985, 0.986, 0.99, 0.991, 0.993]]
)
def test_a_broken_run_is_in_the_strip_and_does_not_make_the_range(tmp_path, values):
    """Even where it is the smallest, and so on the front."""
    problem = accuracies(tmp_path, values)
    broken = sum(value < 0.9 for value in values)
    assert 0.96 < worst_shown(problem) < 0.986
    found, scale = heights(problem)
    assert scale.has_strip and all(0.01 < height < 0.25 for height in found[:broken])
    assert found == sorted(found) and found[-1] - found[broken] > 0.25


@pytest.mark.parametrize("values", [[0.60, 0.66, 0.69, 0.71], [0.9], [0.9, 0.9], [0.97, 0.98, 0.99]])
def test_a_front_without_outliers_is_shown_whole(tmp_path, values):
    problem = accuracies(tmp_path, values)
    found, scale = heights(problem)
    assert worst_shown(problem) <= min(values) and not scale.has_strip
    assert all(0 < height < 1 for height in found)


def test_lower_is_better_is_the_mirror(tmp_path):
    """The same fronts, once as goodness g and once as 8 - g."""
    problem = text_runs(tmp_path, [2.3 + drop for drop in (0.5, 0.2, 0.1, 0.02, 0.0)])
    up = replace(problem.headline, higher_is_better=True)
    points = tuple(replace(point, headline=up, score=8 - point.score) for point in problem.points)
    method = replace(problem.methods["qat"], points=points, front=points)
    mirror = replace(problem, headline=up, points=points, front=points, methods={"qat": method})
    assert worst_shown(problem) == pytest.approx(8 - worst_shown(mirror))
    assert heights(problem)[0] == pytest.approx(heights(mirror)[0])


def test_a_broken_run_where_lower_is_better(tmp_path):
    found, scale = heights(text_runs(tmp_path, [7.5, 2.40, 2.35, 2.32, 2.31]))
    assert scale.has_strip and 0.01 < found[0] < 0.25 < found[1]


@given(st.floats(-1e3, 1e3), st.floats(0.001, 1), st.floats(-1e4, 1e4))
def test_a_scale_and_its_inverse(floor, squeeze, value):
    scale = Scale(floor, floor - 10, floor + 10, squeeze)
    assert float(scale.backward(scale.forward(value))) == pytest.approx(value, abs=1e-6)
    assert scale.forward(value) <= scale.forward(value + 1)


def test_labels_of_narrow_panels_do_not_meet():
    wide, narrow = ticks(0.002, 1.3), ticks(0.002, 1.3, apart=0.13)
    assert len(narrow) < len(wide) and min(right / left for left, right in pairwise(narrow)) >= 650**0.13


@given(st.floats(1e-4, 1e3), st.floats(1.2, 1e5))
def test_ticks_are_round_numbers_inside_and_apart(low, ratio):
    found = ticks(low, low * ratio)
    assert len(found) >= (2 if ratio >= 1.5 else 1)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in found)
    assert all(len(f"{tick:.12g}".replace(".", "").strip("0")) <= 3 for tick in found)
    assert all(right > left for left, right in pairwise(found))
