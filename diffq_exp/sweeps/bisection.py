"""Which compression ratios to try, one after the other, until the largest one that is good enough is known.

Ratios go up (or down) by a factor of 4 until a good and a bad one are found; then the geometric middle of both is
tried, until they are within CLOSE of each other. Ratios have three digits, so that the same search asks for the
same runs again.
"""

from __future__ import annotations

import math
from collections.abc import Generator

FIRST, FACTOR, CLOSE = 16.0, 4.0, 1.1
LEAST, MOST = 1.0, 1e5  # taken as good and as bad without a try


def search_ratios(probes: int) -> Generator[float, bool, None]:
    """Yields at most `probes` ratios; is sent whether a network that is compressed so is good enough."""
    good, bad, ratio = LEAST, MOST, FIRST
    for _ in range(probes):
        if (yield ratio):
            good = ratio
        else:
            bad = ratio
        if bad / good <= CLOSE:
            return
        if bad == MOST:
            ratio = min(FACTOR * good, _middle(good, bad))
        elif good == LEAST:
            ratio = max(bad / FACTOR, _middle(good, bad))
        else:
            ratio = _middle(good, bad)
        ratio = float(f"{ratio:.3g}")


def _middle(good: float, bad: float) -> float:
    return math.sqrt(good * bad)
