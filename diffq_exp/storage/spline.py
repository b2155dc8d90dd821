"""The most likely curve of a few knots for given counts: a log-linear spline, fitted by Newton's method.

With knots theta_k and the hat functions h_k between them, p(s) is proportional to exp(sum_k theta_k h_k(s)): an
exponential family, so that the likelihood is concave and its gradient is the difference of two means of the hats.
A symbol meets two hats only; all sums below run over the symbols once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STEPS = 25  # of Newton's method, at most
LARGEST_STEP = 2.0  # the largest step in the logarithm
PRIOR = 0.5  # counts that are spread evenly over the alphabet, so that symbols that never occur stay finite


class _Hats:
    """The hat functions of `knots` even places over `symbols` symbols: at s, hat `cell` is 1 - f, the next is f."""

    def __init__(self, symbols: int, knots: int) -> None:
        place = np.arange(symbols) * ((knots - 1) / (symbols - 1))
        self.knots = knots
        self.cell = np.minimum(place.astype(np.int64), knots - 2)
        self.right = place - self.cell
        self.left = 1 - self.right

    def sums(self, weights: Floats) -> Floats:
        """sum_s weights(s) h_k(s), (K,)."""
        return self._at(0, weights * self.left) + self._at(1, weights * self.right)

    def products(self, weights: Floats) -> Floats:
        """sum_s weights(s) h_j(s) h_k(s), (K, K)."""
        beside = self._at(0, weights * self.left * self.right)[:-1]
        own = self._at(0, weights * self.left**2) + self._at(1, weights * self.right**2)
        return np.diag(own) + np.diag(beside, 1) + np.diag(beside, -1)

    def curve(self, theta: Floats) -> Floats:
        """sum_k theta_k h_k(s), (S,)."""
        return theta[self.cell] * self.left + theta[self.cell + 1] * self.right

    def _at(self, offset: int, weights: Floats) -> Floats:
        sums: Floats = np.bincount(self.cell + offset, weights, self.knots).astype(np.float64, copy=False)
        return sums


def fit(counts: Floats | NDArray[np.int64], knots: int) -> Floats:
    """The most likely curve at its knots, (K,), as logarithms to base 2; counts (S,), 2 <= K < S."""
    hats = _Hats(len(counts), knots)
    share = counts + PRIOR / len(counts)
    share = share / share.sum()
    target = hats.sums(share)
    theta = np.log(target / hats.sums(np.ones(len(counts))))
    for _ in range(STEPS):
        curve = hats.curve(theta)
        likely = np.exp(curve - curve.max())
        likely /= likely.sum()
        means = hats.sums(likely)
        hessian = hats.products(likely) - np.outer(means, means)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(knots), target - means)
        theta += np.clip(step - step.mean(), -LARGEST_STEP, LARGEST_STEP)
        if np.abs(target - means).max() < 1e-6:
            break
    return theta / np.log(2.0)
