"""The headline: direction, units and text of the score by which runs are compared."""

import pytest
from helpers.made_runs import BITS_PER_BYTE

from diffq_exp.results.headline import Headline

ACCURACY = Headline(chance=0.1)
LOSS = Headline("loss", "loss", "nats", False)
PLAIN = Headline("f1", "F1", "")


def test_an_accuracy_is_shown_in_percent():
    assert (ACCURACY.shown(0.9917), ACCURACY.goodness(0.9917)) == (pytest.approx(99.17), 0.9917)
    assert ACCURACY.text(0.9917) == "99.17" and ACCURACY.spread_text(0.9917, 0.001) == "99.17 ± 0.10"
    assert (ACCURACY.worse, ACCURACY.better, ACCURACY.difference) == ("below", "above", "points")


def test_bits_per_byte_are_better_when_they_are_lower():
    assert (BITS_PER_BYTE.shown(2.3158), BITS_PER_BYTE.goodness(2.3158)) == (2.3158, -2.3158)
    assert BITS_PER_BYTE.goodness(2.0) > BITS_PER_BYTE.goodness(3.0)
    assert BITS_PER_BYTE.spread_text(2.31584, None) == "2.3158"
    assert (BITS_PER_BYTE.worse, BITS_PER_BYTE.better, BITS_PER_BYTE.difference) == ("above", "below", "bits")


@pytest.mark.parametrize(
    ("headline", "suffix", "axis", "title", "amount"),
    [
        (ACCURACY, "%", "accuracy, %", "test accuracy, %", "accuracy points"),
        (BITS_PER_BYTE, "bits per byte", "bits per byte", "test bits per byte (lower is better)", "bits per byte"),
        (LOSS, "nats", "loss, nats", "test loss, nats (lower is better)", "loss nats"),
        (PLAIN, "F1", "F1", "test F1", "F1"),
    ],
    ids=["accuracy", "bits per byte", "loss", "no unit"],
)
def test_units_stand_where_they_are_needed(headline, suffix, axis, title, amount):
    assert (headline.suffix, headline.axis, headline.axis_title, headline.amount) == (suffix, axis, title, amount)


def test_no_value_is_a_dash():
    assert ACCURACY.text(None) == BITS_PER_BYTE.text(None) == "-"


@pytest.mark.parametrize("headline", [ACCURACY, BITS_PER_BYTE, LOSS])
def test_a_headline_is_read_as_it_was_written(headline):
    assert Headline.from_json(headline.to_json()) == headline


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 3},
        {"unit": None},
        {"higher_is_better": "no"},
        {"chance": "0.1"},
        {"chance": float("nan")},
        {"tolerances": 0.5},
        {"tolerances": [0.5, "1"]},
    ],
)
def test_an_entry_of_a_wrong_kind_is_named(wrong):
    with pytest.raises(ValueError, match=rf"headline\.{next(iter(wrong))} is "):
        Headline.from_json({**ACCURACY.to_json(), **wrong})
