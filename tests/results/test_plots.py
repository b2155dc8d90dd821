"""The picture: what it must not do to its data. How it looks was looked at."""

import re
from dataclasses import replace
from itertools import pairwise

import matplotlib
import pytest
from helpers.made_runs import TEXT, made_run, made_sweep
from hypothesis import given
from hypothesis import strategies as st

from diffq_exp.results import plots
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.plots import STYLES, draw, styles, ticks, worst_shown
from diffq_exp.results.summary import make_report

PNG = b"\x89PNG\r\n\x1a\n"


def report_of(outputs):
    return make_report(find_runs([outputs]))


def test_the_same_report_makes_the_same_bytes(tmp_path):
    made_sweep(tmp_path, seeds=2)
    report = report_of(tmp_path)
    first = [path.read_bytes() for path in draw(report, tmp_path)]
    assert [path.read_bytes() for path in draw(report, tmp_path)] == first
    assert first[0].startswith(PNG) and b"<svg" in first[1] and b"dc:date" not in first[1]
    assert matplotlib.rcParams["svg.hashsalt"] is None  # as it was


def test_one_run_alone(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    assert draw(report_of(tmp_path), tmp_path)[0].read_bytes().startswith(PNG)


def test_names_may_hold_mathematics_and_markup(tmp_path):
    made_run(tmp_path, ["quantizer=a$_{b$<&>"], accuracy=0.9, mb=0.1)
    svg = draw(report_of(tmp_path), tmp_path)[1].read_text()
    assert "<!-- a$_{b$&lt;&amp;&gt; -->" in svg or "<!-- a$_{b$<&> -->" in svg  # as it is, and not typeset


def test_many_problems_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "PANELS", 3)
    for number in range(4):
        made_run(tmp_path, [f"dataset=d{number:02}", "quantizer=qat"])
    svg = draw(report_of(tmp_path), tmp_path)[1].read_text()
    titles = set(re.findall(r"<!-- (d\d\d), digits_cnn -->", svg))
    assert titles == {f"d{number:02}" for number in range(3)}


def problem_of(tmp_path, accuracies):
    for number, accuracy in enumerate(accuracies):
        made_run(tmp_path, ["quantizer=qat", f"bits={number + 2}"], accuracy=accuracy, mb=0.05 * (number + 1))
    return report_of(tmp_path).problems[0]


def test_a_broken_run_does_not_make_the_range(tmp_path):
    """Even where it is the smallest, and so on the front."""
    problem = problem_of(tmp_path, [0.3, 0.981, 0.985, 0.990, 0.994])
    assert 0.96 < worst_shown(problem) < 0.981
    draw(report_of(tmp_path), tmp_path)
    assert "30.0" in re.sub(r"<[^!][^>]*>", "", (tmp_path / "pareto.svg").read_text())


@pytest.mark.parametrize("accuracies", [[0.60, 0.66, 0.69, 0.71], [0.9], [0.9, 0.9]])
def test_a_front_without_outliers_is_shown_whole(tmp_path, accuracies):
    assert worst_shown(problem_of(tmp_path, accuracies)) <= min(accuracies)


def text_runs(outputs, scores):
    for number, score in enumerate(scores):
        overrides = [*TEXT, "quantizer=qat", f"bits={number + 2}"]
        made_run(outputs, overrides, bits_per_byte=score, mb=0.05 * (number + 1))


def test_lower_is_better_stands_at_the_axis_and_broken_runs_at_its_upper_edge(tmp_path):
    text_runs(tmp_path, [7.5, 2.40, 2.35, 2.32, 2.31])
    report = report_of(tmp_path)
    assert 2.40 <= worst_shown(report.problems[0]) < 2.7
    svg = draw(report, tmp_path)[1].read_text()
    assert "<!-- test bits per byte (lower is better) -->" in svg
    assert "<!-- \u25b2 -->" in svg and "<!-- \u25bc -->" not in svg and "<!-- 7.5 -->" in svg


def test_the_range_of_a_score_that_is_lower_is_the_mirror_of_one_that_is_higher(tmp_path):
    """The same fronts, once as goodness g and once as 8 - g."""
    drops = [0.5, 0.2, 0.1, 0.02, 0.0]
    text_runs(tmp_path, [2.3 + drop for drop in drops])
    problem = report_of(tmp_path).problems[0]
    up = replace(problem.headline, higher_is_better=True)
    points = tuple(replace(point, headline=up, score=8 - point.score) for point in problem.points)
    method = replace(problem.methods["qat"], points=points, front=points)
    mirror = replace(problem, headline=up, points=points, front=points, methods={"qat": method})
    assert worst_shown(problem) == pytest.approx(8 - worst_shown(mirror))


@given(st.floats(1e-4, 1e3), st.floats(1.2, 1e5))
def test_ticks_are_round_numbers_inside_and_apart(low, ratio):
    found = ticks(low, low * ratio)
    assert len(found) >= (2 if ratio >= 1.5 else 1)
    assert all(low * 0.999 <= tick <= low * ratio * 1.001 for tick in found)
    assert all(len(f"{tick:.12g}".replace(".", "").strip("0")) <= 3 for tick in found)
    assert all(right > left for left, right in pairwise(found))


def test_every_method_looks_different():
    names = ["diffq", "qat", "uniform bits", "lsq", "gaussian noise", "ptq", "none", "mine"]
    found = styles(names)
    assert list(found) == names and found["diffq"] == STYLES["diffq"]
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)
    assert len({look.colour for look in found.values()}) == len(names)
    assert len(styles(str(number) for number in range(30))) == 30
