"""Exponential averages of the weights of a network, which are measured and stored in place of the last weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Averages:
    """The averages of all floating parameters and buffers of a model, a quantizer's learned tensors among them.

    After step n an average moves by 1 - min(decay, n / (n + 9)) towards the current value: a plain mean at
    first, so that the random weights of the beginning are soon forgotten.
    Raises: ValueError unless 0 < decay < 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of averages is {decay:g}; it has to lie between 0 and 1")
        self.decay, self.steps = decay, 0
        self.values = [value for value in (*model.parameters(), *model.buffers()) if value.is_floating_point()]
        self.means = [value.detach().clone() for value in self.values]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.means, [value.detach() for value in self.values], share)

    @torch.no_grad()
    def exchange(self) -> None:
        """The averages into the model, its weights into `means`; a second time puts them back."""
        for value, mean in zip(self.values, self.means, strict=True):
            kept = value.detach().clone()
            value.copy_(mean)
            mean.copy_(kept)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The averages in the model inside a `with`."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for mean, saved in zip(self.means, state["means"], strict=True):
            mean.copy_(saved)
