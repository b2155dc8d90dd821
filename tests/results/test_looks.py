"""How methods look: each differently, however many there are."""

import itertools
import math

import pytest

from diffq_exp.results.looks import COLOURS, STYLES, label, styles


def lab(colour):
    """CIELAB of "#rrggbb", in which equal distances look equal."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.95047, 1.0, 1.08883)
    xyz = [sum(a * b for a, b in zip(row, light, strict=True)) / w for row, w in zip(rows, white, strict=True)]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_sixteen_colours_that_are_far_apart_and_stand_out_from_white():
    assert len(COLOURS) == 16
    assert min(math.dist(lab(a), lab(b)) for a, b in itertools.combinations((*COLOURS, "#000000"), 2)) > 20
    assert max(lab(colour)[0] for colour in COLOURS) < 76


@pytest.mark.parametrize("count", [12, 16, 150])
def test_methods_without_a_style_look_different(count):
    found = styles(f"mine {number}" for number in range(count))
    assert len({(look.colour, look.marker) for look in found.values()}) == count
    assert len({look.colour for look in found.values()}) == min(count, 16)
    assert {look.symbol for look in found.values()} >= {"circle", "square"}


def test_known_methods_keep_their_looks():
    names = ["diffq", "qat", "uniform bits", "lsq", "gaussian noise", "ptq", "none", "mine"]
    found = styles(names)
    assert list(found) == names and found["diffq"] == STYLES["diffq"]
    assert (
        len({look.colour for look in found.values()}) == len({look.marker for look in found.values()}) == len(names)
    )


def test_labels():
    assert label("diffq group_size=8") == "DiffQ group_size=8"
    assert label("gaussian bits") == "gaussian bits"
    assert label("none") == "float32"
    assert label("a\x1b[31m" + "b" * 100_000) == "a\\x1b[31m" + "b" * 13 + "…" + "b" * 20
