"""The stored form of a quantizer's weights, computed once and kept until what it follows from changes.

That is compared entry by entry, since a change of `.data` leaves no other trace: averaging of weights by others,
`vector_to_parameters` and assignments do so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..stored.grids import Stored
from ..stored.selection import Selection, Tensors
from .swap import Held


class Owner(Protocol):
    """The part of a quantizer that its attachment uses."""

    model: nn.Module
    selection: Selection
    float16: bool
    progress: float
    coarsened: float
    method: str

    def training_values(self) -> Iterable[Tensor | None]: ...
    def store(self, item: Tensors, weight: Tensor) -> Stored: ...
    def learned(self) -> dict[str, nn.Parameter]: ...
    def check_ready(self) -> None: ...
    def check_stored(self, item: Tensors, stored: Stored) -> None: ...
    def adopt(self, item: Tensors, stored: Stored) -> None: ...


def changed_in_evaluation(owner: Owner) -> tuple[Tensors, ...]:
    """All parameters that an evaluation forward sees changed."""
    return owner.selection.quantized + (owner.selection.floats if owner.float16 else ())


@dataclass
class _Kept:
    """Tensors by name, and what they follow from: weights and learned tensors by name, progress and coarsening.

    values: those of `changed_in_evaluation`, if they were asked for.
    """

    stored: dict[str, Stored]
    weights: dict[str, Tensor]
    numbers: tuple[float, float]
    values: list[Tensor] | None = None


class StoredWeights:
    """Of one quantizer. held: the float weights, where the parameters have others."""

    def __init__(self, owner: Owner, held: Held) -> None:
        self._owner, self._held = owner, held
        self._kept: _Kept | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}

    @torch.no_grad()
    def all(self) -> tuple[dict[str, Stored], list[Tensor]]:
        """The quantized tensors by name, and the values of `changed_in_evaluation`."""
        with torch.inference_mode(False):
            if torch.compiler.is_compiling():
                stored = self._computed()
                return stored, self._values(stored)
            if self._kept is None or not self._is_unchanged(self._weights()):
                self.keep(self._computed())
            assert self._kept is not None
            if self._kept.values is None:
                self._kept.values = self._values(self._kept.stored)
            return self._kept.stored, self._kept.values

    @torch.no_grad()
    def one(self, item: Tensors) -> Stored:
        """One quantized tensor: that of the last evaluation while nothing has changed, else a new one."""
        weight = self._held.weight(item)
        if self._kept is not None and self._is_unchanged({item.name: weight, **self._owner.learned()}):
            return self._kept.stored[item.name]
        return self._owner.store(item, weight)

    def keep(self, stored: dict[str, Stored]) -> None:
        """Take these as the stored form of the weights of the moment."""
        weights = {name: weight.detach().clone() for name, weight in self._weights().items()}
        self._kept = _Kept(stored, weights, self._numbers())

    def forget(self) -> None:
        self._kept = None

    def _computed(self) -> dict[str, Stored]:
        items = self._owner.selection.quantized
        return {item.name: self._owner.store(item, self._held.weight(item)) for item in items}

    def _values(self, stored: dict[str, Stored]) -> list[Tensor]:
        values = [tensor.values() for tensor in stored.values()]
        if self._owner.float16:
            values += [item.param.half().to(item.param.dtype) for item in self._owner.selection.floats]
        return values

    def _numbers(self) -> tuple[float, float]:
        return self._owner.progress, self._owner.coarsened

    def _weights(self) -> dict[str, Tensor]:
        """All that stored values follow from."""
        weights = {item.name: self._held.weight(item) for item in changed_in_evaluation(self._owner)}
        return {**weights, **self._owner.learned()}

    def _is_unchanged(self, weights: Mapping[str, Tensor]) -> bool:
        assert self._kept is not None
        pairs = [(self._kept.weights[name], weight) for name, weight in weights.items()]
        return self._kept.numbers == self._numbers() and all(
            old.device == new.device and old.dtype == new.dtype and torch.equal(old, new) for old, new in pairs
        )


class StoredTensors(Mapping[str, Stored]):
    """The quantized tensors in their stored form, by name; each is computed when it is read."""

    def __init__(self, weights: StoredWeights, selection: Selection) -> None:
        self._weights = weights
        self._quantized = {item.name: item for item in selection.quantized}

    def __getitem__(self, name: str) -> Stored:
        return self._weights.one(self._quantized[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._quantized)

    def __len__(self) -> int:
        return len(self._quantized)
