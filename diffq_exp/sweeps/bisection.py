"""Which compression ratios to try, one after the other, until the largest one that is good enough is known.

Ratios go up (or down) by a factor of 4 until a good and a bad one are found, unless some are known; then the
geometric middle of both is tried, until they are within CLOSE of each other. Ratios have three digits, so that the
same search asks for the same runs again.
"""

from __future__ import annotations

import math
from collections.abc import Generator

FIRST, FACTOR, CLOSE = 16.0, 4.0, 1.1
LEAST, MOST = 1.0, 1e5  # taken as good and as bad without a try


def search_ratios(probes: int, good: float = LEAST, bad: float = MOST) -> Generator[float, bool, None]:
    """Yields at most `probes` ratios; is sent whether a network that is compressed so is good enough.

    good, bad: ratios of which that is known.
    """
    for _ in range(probes):
        if bad / good <= CLOSE:
            return
        ratio = _next(good, bad)
        if (yield ratio):
            good = ratio
        else:
            bad = ratio


def _next(good: float, bad: float) -> float:
    middle = math.sqrt(good * bad)
    if good == LEAST and bad == MOST:
        ratio = FIRST
    elif bad == MOST:
        ratio = min(FACTOR * good, middle)
    elif good == LEAST:
        ratio = max(bad / FACTOR, middle)
    else:
        ratio = middle
    return float(f"{ratio:.3g}")
