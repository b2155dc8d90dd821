"""Language modelling: the cross entropy of the next token, and the scores that follow from its mean.

Bits per byte, not the loss, is the headline where the data say how many bytes each token stands for: it compares
models of different vocabularies. Perplexity is the exponential of the mean loss, which no mean of batches gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..data import Data
from ..results.headline import Headline
from .base import Task

NEAR = (0.05, 0.1)  # bits from float32 that still count as near
LARGEST_EXPONENT = 700.0  # e**709 is the largest float


class LanguageModelling(Task):
    """Outputs (B, T, vocabulary), targets int64 (B, T): the token that follows each one.

    token_bytes: the bytes that each token of the vocabulary stands for, as the data say; None: not known, and the
    headline is bits per token.
    """

    def __init__(self, token_bytes: Sequence[int] | None = None) -> None:
        self._bytes = None if token_bytes is None else torch.tensor(list(token_bytes))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.float().flatten(0, 1), targets.flatten())

    def scores(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if self._bytes is None:
            return {}
        self._bytes = self._bytes.to(targets.device)
        return {"bytes": self._bytes[targets].sum()}

    def count(self, targets: Tensor) -> int:
        return targets.numel()

    def finish(self, means: dict[str, float]) -> dict[str, float]:
        """{"loss"} in nats per token, with bits_per_byte or bits_per_token, and the perplexity of a token."""
        if "loss" not in means:  # before the first batch
            return {}
        loss, unit_bytes = means["loss"], means.get("bytes", 1.0)
        bits = loss / math.log(2) / max(unit_bytes, 1e-9)
        return {"loss": loss, self._name: bits, "perplexity": math.exp(min(loss, LARGEST_EXPONENT))}

    @property
    def _name(self) -> str:
        return "bits_per_token" if self._bytes is None else "bits_per_byte"

    def headline(self, data: Data) -> Headline:
        """Chance is a uniform guess among the vocabulary; of tokens of several bytes it is not known."""
        guess = math.log2(data.facts["vocabulary"]) if "vocabulary" in data.facts else None
        if self._bytes is not None and not bool((self._bytes == 1).all()):
            guess = None
        return Headline(self._name, self._name.replace("_", " "), "bits", False, guess, NEAR)
