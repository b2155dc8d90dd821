"""The noise that kernels draw: one of 65,536 equally likely values, chosen by 16 random bits.

The values are the means of cells of equal probability of a distribution. Its distribution function is met within
2^-16 everywhere, its moments to the fourth within 1e-3: nothing that a training could notice. Kernels have the
noises of `CELLS_OF`; all others go by torch (../noisy_weights.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..noise import Gaussian, Noise, NoNoise, Uniform

CELLS = 2**16

Array = NDArray[Any]


def gaussian_cells() -> Array:
    """The means of N(0, 1)/2 in CELLS cells of equal probability, and with its variance, (CELLS,)."""
    borders = torch.special.ndtri(torch.linspace(0, 1, CELLS + 1, dtype=torch.float64, device="cpu"))
    density = torch.exp(-borders.square() / 2)  # times 1 / sqrt(2 pi), which the variance settles
    means = density[:-1] - density[1:]
    cells: Array = (0.5 * means / means.square().mean().sqrt()).numpy()
    return cells


def uniform_cells() -> Array:
    """The means of U(-1/2, 1/2) in CELLS cells of equal probability, (CELLS,)."""
    return (np.arange(CELLS) + 0.5) / CELLS - 0.5


def zero_cells() -> Array:
    """No noise, (CELLS,)."""
    return np.zeros(CELLS)


CELLS_OF: dict[type[Noise], Callable[[], Array]] = {
    Gaussian: gaussian_cells,
    Uniform: uniform_cells,
    NoNoise: zero_cells,
}


@cache
def cells_of(kind: type[Noise]) -> Array:
    """The values that 16 bits choose from, float32 (CELLS,)."""
    return CELLS_OF[kind]().astype(np.float32)
