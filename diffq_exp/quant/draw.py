"""The noise eps of a weight before its size: U(-1/2, 1/2) or N(0, 1)/2, of the weight's shape, row-major.

In a CPU's memory, large ones take one of 65,536 equally likely values, which 16 bits of numpy's fastest generator
choose: cells of equal probability of the distribution. Its function is met within 2^-16 everywhere, its moments to
the fourth within 1e-3: nothing that a training could tell, in a quarter of the time that torch takes for 24 bits.
Other noise torch draws itself.

Either follows from torch's global generator, so that a seed, or a checkpoint of its state, gives the same noise
again. Ranks of a distributed run draw noise of their own, even where they were seeded alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 2**16
LARGE = 2**14  # entries; below it, calls take longer than what they do
PIECE = 2**16  # entries that are chosen at a time: their bits stay in the cache


def worth_numpy(tensor: Tensor) -> bool:
    """Whether numpy can look at a tensor now, and pays: many floats in a CPU's memory, outside of torch.compile."""
    return (
        not torch.compiler.is_compiling()
        and tensor.device.type == "cpu"
        and tensor.numel() > LARGE
        and tensor.dtype in (torch.float32, torch.float64)
        and type(tensor) in (Tensor, torch.nn.Parameter)  # no subclass, which may hold its data elsewhere
    )


def rank() -> int:
    """That of this process in a distributed run, else 0."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _new_key() -> tuple[int, int]:
    """What the noise of one tensor follows from in one forward; advances torch's global generator."""
    return int(torch.randint(2**63 - 1, (1,)).numpy()[0]), rank()


def _by_torch(like: Tensor, noise: Callable[..., Tensor]) -> Tensor:
    source = None  # the global one
    if not torch.compiler.is_compiling() and rank() > 0:
        seed, number = _new_key()
        source = torch.Generator(like.device).manual_seed((seed + number * 0x9E3779B97F4A7C15) % 2**63)
    return noise(like.shape, dtype=like.dtype, device=like.device, generator=source)


def _by_cells(like: Tensor, choose: Callable[[NDArray[Any], NDArray[Any]], None]) -> Tensor:
    source = np.random.SFC64(np.random.SeedSequence(_new_key()))
    eps = torch.empty(like.shape, dtype=like.dtype)
    flat = eps.view(-1).numpy()
    for start in range(0, len(flat), PIECE):
        piece = flat[start : start + PIECE]
        words = source.random_raw(-(-len(piece) // 4)).view(np.int16)[: len(piece)]
        choose(words, piece)
    return eps


def uniform(like: Tensor) -> Tensor:
    """U(-1/2, 1/2)."""
    return _by_cells(like, _choose_uniform) if worth_numpy(like) else _by_torch(like, torch.rand).sub_(0.5)


def gaussian(like: Tensor) -> Tensor:
    """N(0, 1)/2."""
    return _by_cells(like, _choose_gaussian) if worth_numpy(like) else _by_torch(like, torch.randn).mul_(0.5)


def _choose_uniform(words: NDArray[Any], out: NDArray[Any]) -> None:
    np.copyto(out, words, casting="unsafe")
    np.add(out, 0.5, out=out)
    np.multiply(out, 1 / CELLS, out=out)


def _choose_gaussian(words: NDArray[Any], out: NDArray[Any]) -> None:
    np.take(gaussian_cells(out.dtype), words.view(np.uint16), out=out, mode="wrap")


@cache
def gaussian_cells(dtype: Any = np.float64) -> NDArray[Any]:
    """The means of N(0, 1)/2 in CELLS cells of equal probability, and with its variance, (CELLS,)."""
    borders = torch.special.ndtri(torch.linspace(0, 1, CELLS + 1, dtype=torch.float64))
    density = torch.exp(-borders.square() / 2)  # times 1 / sqrt(2 pi), which the variance settles
    means = density[:-1] - density[1:]
    cells: NDArray[Any] = (0.5 * means / means.square().mean().sqrt()).numpy().astype(dtype)
    return cells


# The gaussian has three times the variance of the uniform noise (1/4 against 1/12), as published.
NOISES: dict[str, Callable[[Tensor], Tensor]] = {"gaussian": gaussian, "uniform": uniform}
