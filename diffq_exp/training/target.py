"""A target for the size of the stored file: what it would be now, and one number that makes it fit exactly.

Training with a penalty ends near a size, not at one. What is left is closed by a scalar on which the size of the
file depends monotonically: all stored steps are made 2^c times as large (Quantizer.coarsen), and c is bisected on
the bytes that the real coder gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quant.quantizer import Quantizer

FINEST, COARSEST = -2.0, 16.0  # c; finer steps than training had are of no use
ENOUGH = 0.985  # of the target; a file within it is not searched further
TRIES = 16  # files that a search looks at


@dataclass(frozen=True)
class Target:
    """bytes: the most that the file may have. file_bytes: measures the file that would be stored now.

    rest: bytes of a file whose levels are all zero; no target below it can be met. finer: whether steps may be made
    finer where the file is smaller, which does no harm to weights that are trained for any step.
    """

    bytes: int
    file_bytes: Callable[[], int]
    rest: int
    finer: bool = True


def fit(quantizer: Quantizer, most: int, file_bytes: Callable[[], int], finer: bool = True) -> int:
    """Coarsen what is stored until the file has at most `most` bytes; with `finer`, refine it if it has far less.

    -> the bytes of the file. They are more than `most` if no step is large enough, and the steps are those of
    training where the file is smaller even with steps of a quarter.
    """
    start = _State(quantizer)

    def measured(bits: float) -> int:
        start.put_back()
        if bits:
            quantizer.coarsen(bits)
        return file_bytes()

    now = file_bytes()
    if now <= most and (now >= ENOUGH * most or not finer):
        return now
    small, large = (COARSEST, 0.0) if now > most else (0.0, FINEST)
    if now > most and (least := measured(small)) > most:
        return least
    if now < most and measured(large) <= most:
        return measured(0.0)
    for _ in range(TRIES):
        middle = (small + large) / 2
        size = measured(middle)
        if size > most:
            large = middle
            continue
        small = middle
        if size >= ENOUGH * most:
            break
    return measured(small)


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
