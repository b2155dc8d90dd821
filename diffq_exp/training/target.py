"""A target for the size of the stored file: what it would be now, and one number that makes it fit exactly.

Training with a penalty ends near a size, not at one. What is left is closed by a scalar on which the size of the
file depends monotonically: what is stored is made coarser by c bits for each weight (Quantizer.coarsen), and c is
bisected on the bytes that the real coder gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..quant.quantizer import Quantizer

FINEST, COARSEST = -8.0, 16.0  # c
ENOUGH = 0.985  # of the target; a file within it is not searched further
TRIES, CLOSE = 16, 0.005  # files that a search looks at; c is known to so much


@dataclass(frozen=True)
class Target:
    """bytes: the most that the file may have. file_bytes: measures the file that would be stored now.

    rest: about the bytes of a file whose levels are all zero. finer: whether steps may be made
    finer where the file is smaller, which does no harm to weights that are trained for any step.
    """

    bytes: int
    file_bytes: Callable[[], int]
    rest: int
    finer: bool = True


def fit(quantizer: Quantizer, most: int, file_bytes: Callable[[], int], finer: bool = True) -> int:
    """Coarsen what is stored until the file has at most `most` bytes; with `finer`, refine it if it has far less.

    -> the bytes of the file. What is stored stays as it was, with more than `most` bytes, where no step is large
    enough, and with less where none is small enough.
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
    if (now > most and measured(small) > most) or (now < most and measured(large) <= most):
        return measured(0.0)
    for _ in range(TRIES):
        middle = (small + large) / 2
        size = measured(middle)
        if size > most:
            large = middle
            continue
        small = middle
        if size >= ENOUGH * most or small - large < CLOSE:
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
