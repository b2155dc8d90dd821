"""Schedules: the shares of the rate that they give, at start, middle and end."""

import math

import pytest

from diffq_exp.training.schedule import Constant, Cosine, OneCycle, Step


def factors(schedule, epochs, steps=50):
    return [schedule.factor(step / steps, epochs) for step in range(epochs * steps)]


def test_constant():
    assert set(factors(Constant(), 7)) == {1.0}


@pytest.mark.parametrize("epochs", [1, 40, 600])
def test_cosine_from_1_over_a_half_to_nothing(epochs):
    schedule = Cosine()
    assert schedule.factor(0, epochs) == 1.0
    assert schedule.factor(epochs / 2, epochs) == pytest.approx(0.5)
    assert schedule.factor(epochs / 4, epochs) == pytest.approx(0.5 + 0.5 * math.sqrt(0.5))
    assert schedule.factor(epochs, epochs) == pytest.approx(0.0, abs=1e-12)


def test_cosine_ends_at_final():
    schedule = Cosine(final=0.1)
    assert schedule.factor(10, 10) == pytest.approx(0.1)
    assert schedule.factor(5, 10) == pytest.approx(0.55)


def test_cosine_warms_up_by_a_straight_line_and_then_falls():
    schedule = Cosine(warmup_epochs=5)
    assert schedule.factor(2.5, 25) == pytest.approx(0.5)
    assert schedule.factor(5, 25) == 1.0
    assert schedule.factor(15, 25) == pytest.approx(0.5)
    assert 0 < schedule.factor(0, 25) <= 0.01  # the first step does something
    rates = factors(schedule, 25)
    assert rates[:250] == sorted(rates[:250]) and rates[250:] == sorted(rates[250:], reverse=True)


@pytest.mark.parametrize("warmup", [0.001, 0.3, 1.0, 3.0, 10.0])
def test_no_share_of_a_warm_up_is_above_1(warmup):
    rates = factors(Cosine(warmup_epochs=warmup), 3, steps=2000)
    assert all(0 <= rate <= 1 for rate in rates), f"{max(rates)} with warmup_epochs={warmup}"


@pytest.mark.parametrize(
    ("every", "decay", "epochs", "places"),
    [
        (60, 0.2, 200, {0: 1, 59.99: 1, 60: 0.2, 119.9: 0.2, 120: 0.04, 180: 0.008, 199.99: 0.008}),
        (200, 0.1, 600, {0: 1, 199.99: 1, 200: 0.1, 400: 0.01, 599.99: 0.01}),
    ],
)
def test_step_decays_at_the_epochs_of_the_paper(every, decay, epochs, places):
    schedule = Step(every=every, decay=decay)
    assert {place: schedule.factor(place, epochs) for place in places} == pytest.approx(places)


def test_onecycle_rises_to_1_and_falls_to_nearly_nothing():
    schedule = OneCycle(peak_at=0.3)
    assert schedule.factor(0, 10) == pytest.approx(1 / 25)
    assert schedule.factor(3, 10) == pytest.approx(1.0)
    assert schedule.factor(1.5, 10) == pytest.approx((1 + 1 / 25) / 2)
    assert schedule.factor(10, 10) < 1e-4
    rates = factors(schedule, 10)
    peak = rates.index(max(rates))
    assert 145 <= peak <= 155
    assert rates[:150] == sorted(rates[:150]) and rates[150:] == sorted(rates[150:], reverse=True)


@pytest.mark.parametrize("schedule", [Constant, Cosine, OneCycle, lambda **bits: Step(every=3, **bits)])
def test_bits_are_left_alone_unless_asked(schedule):
    assert schedule().bits is False and schedule(bits=True).bits is True


@pytest.mark.parametrize("schedule", [Constant(), Cosine(1.0), Step(2), OneCycle()])
def test_a_share_depends_on_nothing_but_the_place(schedule):
    forward = [schedule.factor(place / 7, 3) for place in range(21)]
    backward = [schedule.factor(place / 7, 3) for place in reversed(range(21))]
    assert forward == backward[::-1]
