"""What a network takes, as its stored configuration says it: images in float32, or tokens in int64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Input:
    """shape: of one example.  vocabulary: tokens are below it; None: the input is in float32."""

    shape: tuple[int, ...]
    vocabulary: int | None = None

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> Input:
        """Raises: KeyError, TypeError, ValueError where the values do not say a shape."""
        vocabulary = values.get("vocabulary")
        shape = tuple(int(size) for size in values["shape"])
        return cls(shape, None if vocabulary is None else int(vocabulary))

    @property
    def name(self) -> str:
        """Of the input in the graph."""
        if self.vocabulary is not None:
            return "tokens"
        return "images" if len(self.shape) == 3 else "inputs"

    def batch(self, size: int) -> Tensor:
        """A random batch, always the same of a size."""
        generator = torch.Generator().manual_seed(size)
        if self.vocabulary is not None:
            return torch.randint(self.vocabulary, (size, *self.shape), generator=generator)
        return torch.randn(size, *self.shape, generator=generator)
