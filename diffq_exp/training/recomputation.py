"""Networks that run layers again in the backward, to save memory (activation checkpointing).

Such a layer must see the weights of its first forward, so a step is taken inside `quantizer.noisy()`. That costs
some time; whether it is needed is known by the first step of a process, which is then done again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..quant.misuse import Recomputed
from ..quant.quantizer import Quantizer
from .checkpoint import rng_state, set_rng_state


class Recomputation:
    """Holds the weights of steps where that is needed.

    changed: gives a function that undoes what a step changes besides gradients, buffers and random generators.
    begin: called after the first step, which is then done again in any case: for ranks, which send none of it.
    """

    def __init__(
        self,
        model: nn.Module,
        quantizer: Quantizer | None,
        changed: Callable[[], Callable[[], None]],
        begin: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.quantizer, self.changed, self.begin = model, quantizer, changed, begin
        self.needed: bool | None = None if quantizer is not None or begin is not None else False

    def weights(self) -> AbstractContextManager[None]:
        """For one forward and its backward."""
        return self.quantizer.noisy() if self.needed and self.quantizer is not None else nullcontext()

    def step(self, gradients: Callable[[], None]) -> None:
        """Compute the gradients of a step; the first time, see how, and compute them again if they were wrong."""
        if self.needed is not None:
            gradients()
            return
        undo = self._undo()
        try:
            gradients()
            self.needed = False
        except Recomputed:
            undo()
            self.needed = True
            gradients()
        if self.begin is not None:
            self.begin()
            undo()
            gradients()

    def _undo(self) -> Callable[[], None]:
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        device = next(self.model.parameters()).device
        rng, undo_changed = rng_state(device), self.changed()

        @torch.no_grad()
        def undo() -> None:
            set_rng_state(rng, device)
            for buffer, value in buffers:
                buffer.copy_(value)
            self.model.zero_grad()
            undo_changed()

        return undo
