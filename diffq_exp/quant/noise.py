"""The noise eps of a weight before its size: U(-1/2, 1/2) or N(0, 1)/2.

`draw` is torch's own, for any device and under torch.compile. The compiled kernels (compiled.py) choose one of
65,536 equally likely values by 16 random bits: the means of cells of equal probability of the distribution, whose
function is met within 2^-16 everywhere, its moments to the fourth within 1e-3: nothing that a training could tell.

Either follows from torch's global generator, so that a seed, or a checkpoint of its state, gives the same noise
again. Ranks of a distributed run draw noise of their own, even where they were seeded alike; under torch.compile
they are to be seeded differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 2**16

Array = NDArray[Any]


@dataclass(frozen=True)
class Noise:
    """One kind. by_torch, finish: a generator of torch's, and what makes its values eps. cells: -> (CELLS,)."""

    by_torch: Callable[..., Tensor]
    finish: Callable[[Tensor], Tensor]
    cells: Callable[[], Array]


def draw(noise: str, like: Tensor) -> Tensor:
    """eps of the shape, dtype and device of `like`, row-major."""
    kind, source = NOISES[noise], None  # the global generator
    if not torch.compiler.is_compiling() and rank() > 0:
        source = torch.Generator(like.device).manual_seed((new_key() + rank() * 0x9E3779B97F4A7C15) % 2**63)
    return kind.finish(kind.by_torch(like.shape, dtype=like.dtype, device=like.device, generator=source))


def rank() -> int:
    """That of this process in a distributed run, else 0."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def new_key() -> int:
    """A whole number below 2^63 - 1 that noise can follow from; advances torch's global generator."""
    return int(torch.randint(2**63 - 1, (1,), device="cpu").numpy()[0])


@cache
def cells_of(noise: str) -> Array:
    """The values that 16 bits choose from, float32 (CELLS,)."""
    return NOISES[noise].cells().astype(np.float32)


def uniform_cells() -> Array:
    """The means of U(-1/2, 1/2) in CELLS cells of equal probability, (CELLS,)."""
    return (np.arange(CELLS) + 0.5) / CELLS - 0.5


def gaussian_cells() -> Array:
    """The means of N(0, 1)/2 in CELLS cells of equal probability, and with its variance, (CELLS,)."""
    borders = torch.special.ndtri(torch.linspace(0, 1, CELLS + 1, dtype=torch.float64, device="cpu"))
    density = torch.exp(-borders.square() / 2)  # times 1 / sqrt(2 pi), which the variance settles
    means = density[:-1] - density[1:]
    cells: Array = (0.5 * means / means.square().mean().sqrt()).numpy()
    return cells


# The gaussian has three times the variance of the uniform noise (1/4 against 1/12), as published.
NOISES = {
    "gaussian": Noise(torch.randn, lambda eps: eps.mul_(0.5), gaussian_cells),
    "uniform": Noise(torch.rand, lambda eps: eps.sub_(0.5), uniform_cells),
}
