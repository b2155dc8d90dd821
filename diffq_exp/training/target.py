"""A target for the size of the stored file: what it would be now, and one number that makes it fit exactly.

Training with a penalty ends near a size, not at one. What is left is closed by a scalar on which the size of the
file depends monotonically: what is stored is made coarser by c bits for each weight (Quantizer.coarsen), and c is
bisected on the bytes that the real coder gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..quant.quantizer import Quantizer

FINEST, COARSEST = -8.0, 16.0  # c
ENOUGH, AIM = 0.985, 0.993  # of the target: a file within it is not searched further, and what is tried for
TURNS, MOST_CODED = 40, 16  # of a search: c that it tries, and files
FIRST, CLOSE = 0.05, 1e-4  # of c: the least first step, and how close it is known, since weights gather at borders


@dataclass(frozen=True)
class Target:
    """bytes: the most that the file may have. file_bytes: measures the file that would be stored now.

    rest: about the bytes of a file whose levels are all zero. finer: whether steps may be made
    finer where the file is smaller, which does no harm to weights that are trained for any step.
    """

    bytes: float
    file_bytes: Callable[[], int]
    rest: int
    finer: bool = True


def fit(quantizer: Quantizer, most: float, file_bytes: Callable[[], int], finer: bool = True) -> int:
    """Coarsen what is stored until the file has at most `most` bytes; with `finer`, refine it if it has far less.

    -> the bytes of the file. What is stored stays as it was, with more than `most` bytes, where no step is large
    enough, and with less where none is small enough.
    """
    sizes = _Sizes(quantizer, file_bytes)
    if (now := sizes.at(0.0)) <= most and (now >= ENOUGH * most or not finer):
        return now
    ends = _bracket(sizes, most)
    if ends is None:
        return sizes.at(0.0)
    large, small = ends  # c of a file that is too large, and of one that fits
    for turn in range(TURNS):
        if sizes.at(small) >= ENOUGH * most or small - large < CLOSE or sizes.coded > MOST_CODED:
            break
        middle = (large + small) / 2 if turn % 3 == 2 else _between(sizes, large, small, most)
        if sizes.at(middle) > most:
            large = middle
        else:
            small = middle
    return sizes.at(small)


def _bracket(sizes: _Sizes, most: float) -> tuple[float, float] | None:
    """The nearest two c that were tried of which the first gives too large a file; None: there are no such."""
    too_large, excess = sizes.at(0.0) > most, sizes.at(0.0) - AIM * most
    step, last = math.copysign(max(abs(excess) / sizes.bytes_per_bit, FIRST), excess), 0.0
    while FINEST < last < COARSEST:
        end = min(max(last + step, FINEST), COARSEST)
        if (sizes.at(end) > most) != too_large:
            return (last, end) if too_large else (end, last)
        last, step = end, 2 * step
    return None


def _between(sizes: _Sizes, large: float, small: float, most: float) -> float:
    """Where the aim lies if the logarithm of the size goes in a straight line."""
    above, below = (math.log(sizes.at(c) / (AIM * most)) for c in (large, small))
    share = above / (above - below)
    return large + min(max(share, 0.02), 0.98) * (small - large)


class _Sizes:
    """The bytes of the file by c. Where what is stored is the same, as for methods of whole widths, so are they."""

    def __init__(self, quantizer: Quantizer, file_bytes: Callable[[], int]) -> None:
        self._quantizer, self._file_bytes, self._start = quantizer, file_bytes, _State(quantizer)
        self._by_c: dict[float, int] = {}
        self._by_estimate: dict[float, int] = {}
        self.bytes_per_bit = sum(item.entries for item in quantizer.selection.quantized) / 8

    @property
    def coded(self) -> int:
        """How many files were coded."""
        return len(self._by_estimate)

    def at(self, c: float) -> int:
        """The bytes; what is stored is then that of c."""
        self._start.put_back()
        if c:
            self._quantizer.coarsen(c)
        if c not in self._by_c:
            self._by_c[c] = self._measured()
        return self._by_c[c]

    @torch.no_grad()
    def _measured(self) -> int:
        estimate = float(self._quantizer.coded_bits())
        if estimate not in self._by_estimate:
            self._by_estimate[estimate] = self._file_bytes()
        return self._by_estimate[estimate]


class _State:
    """What `coarsen` changes."""

    def __init__(self, quantizer: Quantizer) -> None:
        self._quantizer, self._coarsened = quantizer, quantizer.coarsened
        self._values: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in quantizer.learned().items()
        }

    @torch.no_grad()
    def put_back(self) -> None:
        self._quantizer.coarsened = self._coarsened
        for name, value in self._quantizer.learned().items():
            value.copy_(self._values[name])


@contextmanager
def varied_floats(model: nn.Module, quantizer: Quantizer) -> Iterator[None]:
    """Numbers between 0.5 and 1.5 in all that is not quantized, inside a `with`.

    For the size of a trained network: before training, batch norms and biases are constant, and take no bytes.
    """
    source = torch.Generator().manual_seed(0)
    others = {id(item.param) for item in quantizer.selection.quantized} | set(map(id, quantizer.learned().values()))
    tensors = [*model.parameters(), *model.buffers()]
    tensors = [tensor for tensor in tensors if tensor.is_floating_point() and id(tensor) not in others]
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                tensor.copy_(torch.rand(tensor.shape, generator=source) + 0.5)
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)
