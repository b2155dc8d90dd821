"""What each tensor of a stored network gives for its bytes: the loss of a network that has it with one bit less.

Where training has shared out the bytes well, a byte is worth about the same loss in all tensors. A tensor that is
worth much more than the others has too few bits, one that is worth less has too many; where the loss would fall,
its bits do harm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..data import Loader
from ..storage.write import coded_bytes
from ..stored.coarser import coarser
from ..stored.network import StoredModel
from ..tasks import Task
from .measure import mean_scores


@dataclass(frozen=True)
class Sensitivity:
    """A tensor of `bytes` coded bytes.

    With one bit less for each weight it has `saved` bytes less, and the mean loss of the network is `loss` higher.
    """

    name: str
    bits: float
    bytes: int
    saved: int
    loss: float

    @property
    def loss_per_kb(self) -> float | None:
        """The loss for each 1,024 bytes that are saved; None where none are."""
        return self.loss / self.saved * 1024 if self.saved > 0 else None


@torch.no_grad()
def sensitivities(
    model: nn.Module, stored: StoredModel, loader: Loader, task: Task, coding: str = "auto"
) -> Iterator[Sensitivity]:
    """Those of all stored tensors, one after the other. `model` has the weights of `stored`, and keeps them.

    loader: of a part that nothing is reported on, since bits may be chosen by it. coding: of the file.
    """
    before = mean_scores(model, loader, task)["loss"]
    weights = model.state_dict()
    for name, tensor in stored.tensors.items():
        less = coarser(tensor)
        less.write(weights[name])
        try:
            loss = mean_scores(model, loader, task)["loss"] - before
        finally:
            tensor.write(weights[name])
        size = coded_bytes(name, tensor, coding)
        bits = float(tensor.bits.float().mean())
        yield Sensitivity(name, bits, size, size - coded_bytes(name, less, coding), loss)


def table(rows: list[Sensitivity]) -> str:
    """The rows as text in columns, the tensor that is worth most first."""
    worth = sorted(rows, key=lambda row: -math.inf if row.loss_per_kb is None else row.loss_per_kb, reverse=True)
    lines = [("", "bits", "bytes", "one bit less: bytes", "loss", "loss per kB")]
    lines += [
        (
            row.name if row.name.isprintable() else repr(row.name),
            f"{row.bits:.3g}",
            f"{row.bytes:,}",
            f"{-row.saved:,}",
            f"{row.loss:+.4f}",
            "-" if row.loss_per_kb is None else f"{row.loss_per_kb:+.3g}",
        )
        for row in worth
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[text.rjust(width) for text, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *own[1:]]) for line, own in zip(lines, padded, strict=True)
    )
