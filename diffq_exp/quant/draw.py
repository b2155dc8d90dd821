"""The noise eps of a weight before its size: U(-1/2, 1/2) or N(0, 1)/2.

`draw` is torch's own, for any device and under torch.compile. `fill` is for a CPU's memory: a value is one of
65,536 equally likely ones, which 16 bits of numpy's fastest generator choose: cells of equal probability of the
distribution. Its function is met within 2^-16 everywhere, its moments to the fourth within 1e-3: nothing that a
training could tell, in a quarter of the time that torch takes for 24 bits. Each piece of a tensor has a generator
of its own, so that all threads draw and their number changes nothing.

Either follows from torch's global generator, so that a seed, or a checkpoint of its state, gives the same noise
again. Ranks of a distributed run draw noise of their own, even where they were seeded alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray
from torch import Tensor

CELLS = 2**16
PIECE = 2**16  # entries that one generator draws: their bits stay in the cache

Array = NDArray[Any]


@dataclass(frozen=True)
class Noise:
    """One kind. by_torch, finish: a generator of torch's, and what makes its values eps. chooser: dtype -> what
    writes the eps that 16-bit words choose, (words, eps).
    """

    by_torch: Callable[..., Tensor]
    finish: Callable[[Tensor], Tensor]
    chooser: Callable[[Any], Callable[..., Any]]


def draw(noise: str, like: Tensor) -> Tensor:
    """eps of the shape, dtype and device of `like`, row-major."""
    kind, source = NOISES[noise], None  # the global generator
    if not torch.compiler.is_compiling() and rank() > 0:
        seed, number = _new_key()
        source = torch.Generator(like.device).manual_seed((seed + number * 0x9E3779B97F4A7C15) % 2**63)
    return kind.finish(kind.by_torch(like.shape, dtype=like.dtype, device=like.device, generator=source))


def fill(noise: str, flats: Sequence[Tensor]) -> None:
    """Draw eps into tensors (N,) of float32 or float64 in a CPU's memory.

    All in one go: torch's own threads wait busily for a while after each operation, and are in the way meanwhile.
    None of torch may run in our threads: it would give each of them threads of its own, and from then on those of
    all, more than there are cores, sleep instead of waiting busily: 40 us more for every operation of torch.
    """
    outs = [flat.numpy() for flat in flats]
    choose = {out.dtype: NOISES[noise].chooser(out.dtype) for out in outs}
    pieces = [out[start : start + PIECE] for out in outs for start in range(0, len(out), PIECE)]
    seeds = np.random.SeedSequence(_new_key()).generate_state(3 * len(pieces), np.uint64).reshape(-1, 3)

    left = iter(zip(pieces, seeds, strict=True))  # next() is one step of the interpreter: threads share it as it is

    def some() -> None:
        for piece, seed in left:
            source = np.random.SFC64(_Seed(seed))  # type: ignore[arg-type]  # numpy's stubs know no ISeedSequence
            words = source.random_raw(-(-len(piece) // 4))
            choose[piece.dtype](words.view(np.uint16)[: len(piece)], out=piece)

    others = min(torch.get_num_threads(), len(pieces)) - 1
    running = [_threads(others).submit(some) for _ in range(others)]
    some()
    for one in running:
        one.result()


class _Seed(ISeedSequence):
    """Hands a generator its state, which was made for all generators at once."""

    def __init__(self, state: Array) -> None:
        self._state = state

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Array:
        assert (len(self._state), self._state.dtype) == (n_words, dtype)
        return self._state


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, "noise")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of the threads


def rank() -> int:
    """That of this process in a distributed run, else 0."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _new_key() -> tuple[int, int]:
    """What the noise of one call follows from; advances torch's global generator."""
    return int(torch.randint(2**63 - 1, (1,)).numpy()[0]), rank()


def _uniform(dtype: Any) -> Callable[..., Any]:
    def choose(words: Array, out: Array) -> None:
        np.copyto(out, words.view(np.int16), casting="unsafe")
        np.add(out, 0.5, out=out)
        np.multiply(out, 1 / CELLS, out=out)

    return choose


def _gaussian(dtype: Any) -> Callable[..., Any]:
    return partial(np.take, gaussian_cells(dtype), mode="wrap")


@cache
def gaussian_cells(dtype: Any = np.float64) -> Array:
    """The means of N(0, 1)/2 in CELLS cells of equal probability, and with its variance, (CELLS,)."""
    borders = torch.special.ndtri(torch.linspace(0, 1, CELLS + 1, dtype=torch.float64))
    density = torch.exp(-borders.square() / 2)  # times 1 / sqrt(2 pi), which the variance settles
    means = density[:-1] - density[1:]
    cells: Array = (0.5 * means / means.square().mean().sqrt()).numpy().astype(dtype)
    return cells


# The gaussian has three times the variance of the uniform noise (1/4 against 1/12), as published.
NOISES = {
    "gaussian": Noise(torch.randn, lambda eps: eps.mul_(0.5), _gaussian),
    "uniform": Noise(torch.rand, lambda eps: eps.sub_(0.5), _uniform),
}
