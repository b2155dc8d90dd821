"""The fitted curve is the most likely of its kind."""

import numpy as np
import pytest

from diffq_exp.storage.spline import fit


def curve(theta: np.ndarray, symbols: int) -> np.ndarray:
    """Probabilities of a log-linear curve with `theta`, to base 2, at even places."""
    places = np.linspace(0, len(theta) - 1, symbols)
    weights = 2.0 ** np.interp(places, np.arange(len(theta)), theta)
    return weights / weights.sum()


def likelihood(theta: np.ndarray, counts: np.ndarray) -> float:
    return float((counts * np.log2(curve(theta, len(counts)))).sum())


def test_the_knots_that_made_the_counts_come_back():
    theta = np.array([-6.0, -1.0, 0.0, -2.0, -5.0])
    fitted = fit(curve(theta, 65) * 1e9, 5)
    assert fitted - fitted.max() == pytest.approx(theta, abs=1e-3)


@pytest.mark.parametrize("knots", [2, 3, 5, 9])
def test_no_knot_can_be_moved_to_a_more_likely_curve(knots):
    counts = np.random.default_rng(0).binomial(20_000, curve(np.array([-4.0, 0.0, -3.0, -1.0]), 40))
    best = fit(counts, knots)
    for knot in range(knots):
        for distance in (-0.1, 0.1):
            moved = best.copy()
            moved[knot] += distance
            assert likelihood(moved, counts) < likelihood(best, counts)


def test_symbols_that_never_occur_stay_finite():
    assert np.isfinite(fit(np.array([0, 0, 5, 0, 0, 0, 0, 0]), 3)).all()
