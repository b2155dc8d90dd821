"""The picture: what it must not do to its data, and what can be chosen. How it looks was looked at."""

import re

import matplotlib
import pytest
from helpers.made_runs import TEXT, made_run, made_sweep

from diffq_exp.results import plots
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.plots import PICTURE, Picture, draw
from diffq_exp.results.summary import make_report

PNG = b"\x89PNG\r\n\x1a\n"


def report_of(outputs):
    return make_report(find_runs([outputs]))


def svg_of(outputs, picture=PICTURE):
    draw(report_of(outputs), outputs, picture)
    return (outputs / "pareto.svg").read_text()


def figure_of(outputs, picture=PICTURE):
    """The figure, laid out as it is written."""
    with plots._settings(picture):
        figure = plots._figure(report_of(outputs), picture)
        figure.draw_without_rendering()
    return figure


def texts_of(outputs):
    """What is written inside the axes."""
    return [text.get_text() for text in figure_of(outputs).axes[0].texts]


def test_the_same_report_makes_the_same_bytes(tmp_path):
    made_sweep(tmp_path, seeds=2)
    report = report_of(tmp_path)
    first = [path.read_bytes() for path in draw(report, tmp_path)]
    assert [path.read_bytes() for path in draw(report, tmp_path)] == first
    assert first[0].startswith(PNG) and b"<svg" in first[1] and first[2].startswith(b"%PDF-")
    assert b"dc:date" not in first[1] and b"CreationDate" not in first[2]
    assert matplotlib.rcParams["svg.hashsalt"] is None  # as it was


def test_one_run_alone(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    assert draw(report_of(tmp_path), tmp_path)[0].read_bytes().startswith(PNG)


def test_names_may_hold_mathematics_and_markup(tmp_path):
    made_run(tmp_path, ["quantizer=a$_{b$<&>"], accuracy=0.9, mb=0.1)
    svg = svg_of(tmp_path)
    assert "<!-- a$_{b$&lt;&amp;&gt; -->" in svg or "<!-- a$_{b$<&> -->" in svg  # as it is, and not typeset


def test_many_problems_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "PANELS", 3)
    for number in range(4):
        made_run(tmp_path, [f"dataset=d{number:02}", "quantizer=qat"])
    titles = set(re.findall(r"<!-- (d\d\d), digits_cnn -->", svg_of(tmp_path)))
    assert titles == {f"d{number:02}" for number in range(3)}


def broken(outputs, values):
    for number, accuracy in enumerate(values):
        made_run(outputs, ["quantizer=qat", f"bits={number + 2}"], accuracy=accuracy, mb=0.04 * 2**number)


def test_the_value_of_a_broken_run_stands_beside_it_as_in_the_table(tmp_path):
    broken(tmp_path, [0.3012, 0.981, 0.985, 0.990, 0.994])
    assert texts_of(tmp_path) == ["30.12", "compressed scale"]


def test_the_values_of_many_are_a_sentence(tmp_path):
    broken(tmp_path, [0.985, 0.986, 0.99, 0.994])
    for number in range(3):
        made_run(tmp_path, ["quantizer=ptq", f"lr={number + 1}"], accuracy=0.1, mb=0.06 + 0.0001 * number)
    assert texts_of(tmp_path) == ["compressed scale: 3 points, 10.00 to 10.00 %"]


def test_lower_is_better_stands_at_the_axis(tmp_path):
    for number, score in enumerate([7.5, 2.40, 2.35, 2.32, 2.31]):
        made_run(
            tmp_path, [*TEXT, "quantizer=qat", f"bits={number + 2}"], bits_per_byte=score, mb=0.05 * (number + 1)
        )
    assert texts_of(tmp_path) == ["7.5000", "compressed scale"]
    assert "<!-- test bits per byte (lower is better) -->" in svg_of(tmp_path)


@pytest.mark.parametrize(("count", "length"), [(12, 18), (12, 200), (30, 5), (1, 3)])
def test_the_legend_is_inside_the_picture_and_below_the_panel(tmp_path, count, length):
    for number in range(count):
        made_run(tmp_path, [f"quantizer={'m' * length}{number}"], accuracy=0.9 + number / 1000, mb=0.1)
    figure = figure_of(tmp_path)
    (legend,), (axes,) = figure.legends, figure.axes
    box, panel = legend.get_window_extent(), axes.get_tightbbox()
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    assert box.y1 <= panel.y0 and axes.bbox.height > 2.5 * figure.dpi
    assert len(legend.get_texts()) == count


def test_methods_are_in_the_order_of_their_numbers(tmp_path):
    for size in (1, 16, 8):
        made_run(tmp_path, ["quantizer=diffq", f"group_size={size}"])
    report = make_report(find_runs([tmp_path]), by=("group_size",))
    assert list(report.problems[0].methods) == ["group_size=1", "group_size=8", "group_size=16"]


def test_size_font_and_title(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    figure = figure_of(tmp_path, Picture((3, 2), "DejaVu Serif", 7, "A title: $5 & \x1b"))
    (axes,) = figure.axes
    assert tuple(figure.get_size_inches()) == (3, 2)
    assert axes.get_title("left") == "A title: $5 & \\x1b"
    assert axes.xaxis.label.get_fontfamily()[0] == "DejaVu Serif" and axes.xaxis.label.get_fontsize() == 7


def test_the_title_of_several_problems_is_above_them(tmp_path):
    for name in ("a", "b"):
        made_run(tmp_path, [f"dataset={name}", "quantizer=qat"])
    figure = figure_of(tmp_path, Picture(title="Both"))
    assert figure.get_suptitle() == "Both" and figure.axes[0].get_title("left") == "a, digits_cnn"


def test_an_unknown_font_names_the_nearest(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    with pytest.raises(ValueError, match=r"no font 'DejaVu Serf'; did you mean 'DejaVu Serif'\?"):
        draw(report_of(tmp_path), tmp_path, Picture(font="DejaVu Serf"))


def test_letters_that_the_font_lacks_are_no_warning(tmp_path):
    made_run(tmp_path, ["quantizer=\u85fc"])
    assert draw(report_of(tmp_path), tmp_path)
