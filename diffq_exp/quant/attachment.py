"""What weights a forward sees: hooks on the root module, so that any model goes on working by `model(x)`.

    training forward    `_training_values()`, fresh each time (None: the float weights)
    evaluation forward  the values that would be stored, computed once and kept until a weight or a learned
                        parameter changes

`Attached` is the lower half of a quantizer; what a user asks of one stands in base.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..stored.grids import Stored
from ..stored.selection import Tensors, select
from .swap import Held, put, take_out


class Attached(ABC):
    """Holds on to a model and swaps its weights; the arguments are those of Quantizer."""

    def __init__(
        self,
        model: nn.Module,
        min_size: float = 0.01,
        float16: bool = False,
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
    ) -> None:
        if any(attached_to(module) for module in model.modules()):
            raise RuntimeError("the model has a quantizer already; detach() it before attaching another")
        self.model = model
        self.float16 = float16
        self.selection = select(model, min_size, exclude, detect_bound)
        params = [id(item.param) for item in self.selection.quantized]
        self._shared = len(set(params)) < len(params)  # one parameter with several sets of bits
        self._holding = False  # inside noisy()
        self._held = Held()  # the float weights, inside quantize()
        self._cache: tuple[Any, dict[str, Stored], list[Tensor] | None] | None = None
        self._prepare()
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after, always_call=True)

    # ---- what a method defines ------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Called once, when it is known what is quantized and before the model changes; may refuse."""

    def _training_values(self) -> Iterable[Tensor | None]:
        """What a training forward sees in place of each quantized parameter; None for the parameter itself."""
        return (self._training_value(item) for item in self.selection.quantized)

    def _training_value(self, item: Tensors) -> Tensor | None:
        """The same for one of them, where a method has them one by one."""
        return None

    @abstractmethod
    def _store(self, item: Tensors, weight: Tensor) -> Stored:
        """The tensor as it is stored, from its float `weight`."""

    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that this quantizer added to the model, by their name in it."""
        return {}

    def _check_ready(self) -> None:
        """Raise RuntimeError when a training forward must not run yet."""

    # ---- forwards -------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: Any) -> None:
        if self._holding:
            return
        take_out(self._items())  # left behind by a forward that an interrupt cut short
        if self.model.training:
            self._put_training_values()
            return
        if not self._held or self._shared:
            for item, value in zip(self._items(), self._stored()[1], strict=True):
                put(item, value)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._holding:
            take_out(self._items())

    def _put_training_values(self) -> None:
        self._check_ready()
        self.unquantize()
        self._cache = None
        for item, value in zip(self.selection.quantized, self._training_values(), strict=True):
            if value is not None:
                put(item, value)

    @contextmanager
    def noisy(self) -> Iterator[None]:
        """Hold one set of training weights for all that happens inside: forwards, recomputed forwards, backward.

        For models that checkpoint activations, whose layers run again during the backward. The noise is drawn in
        one graph: losses of several forwards inside are summed for one backward.
        Raises: RuntimeError in eval mode, or inside itself.
        """
        if self._holding or not self.model.training:
            raise RuntimeError("noisy() is for a model in train() mode, and not inside itself")
        take_out(self._items())
        try:
            self._holding = True
            self._put_training_values()
            yield
        finally:
            self._holding = False
            take_out(self._items())

    def _items(self) -> tuple[Tensors, ...]:
        """All parameters that an evaluation forward sees changed."""
        selection = self.selection
        return selection.quantized + (selection.floats if self.float16 else ())

    # ---- stored weights -------------------------------------------------------------------------------------

    def _stored(self) -> tuple[dict[str, Stored], list[Tensor]]:
        """Quantized tensors by name, and the values that `_items()` have in evaluation."""
        key = None if torch.compiler.is_compiling() else self._versions()
        if self._cache is None or key is None or self._cache[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                items = self.selection.quantized
                stored = {item.name: self._store(item, self._held.weight(item)) for item in items}
                values = self._values(stored)
            if key is None:
                return stored, values
            self._cache = (key, stored, values)
        _, stored, kept = self._cache
        if kept is None:  # a state was just restored
            with torch.inference_mode(False), torch.no_grad():
                kept = self._values(stored)
            self._cache = (key, stored, kept)
        return stored, kept

    def _values(self, stored: dict[str, Stored]) -> list[Tensor]:
        values = [tensor.values() for tensor in stored.values()]
        if self.float16:
            values += [item.param.half().to(item.param.dtype) for item in self.selection.floats]
        return values

    def _stored_one(self, item: Tensors) -> Stored:
        """One quantized tensor: that of the last evaluation while nothing has changed, else a new one."""
        if self._cache is not None and self._cache[0] == self._versions():
            return self._cache[1][item.name]
        with torch.no_grad():
            return self._store(item, self._held.weight(item))

    def _versions(self) -> list[tuple[int, int]] | None:
        """Changes whenever a weight or a learned parameter does (`.data` written in place excepted)."""
        tensors = [item.param for item in self._items()] + list(self.learned().values())
        if any(tensor.is_inference() for tensor in tensors):
            return None
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors]

    def quantize(self) -> None:
        """Put the stored values into the model's parameters, until `unquantize()` or a training forward."""
        if not self._held:
            take_out(self._items())
            self._held.hold(self._items(), self._stored()[1])

    def unquantize(self) -> None:
        """Put the float weights back. A parameter that was written to meanwhile keeps what was written."""
        self._held.release()

    @contextmanager
    def enter_quantize(self) -> Iterator[None]:
        """The stored values in the model's parameters for the length of a `with`; inside another, nothing."""
        if self._held:
            yield
            return
        self.quantize()
        try:
            yield
        finally:
            self.unquantize()

    def detach(self) -> None:
        """Take hooks and learned parameters out; the model is as before, with its float weights."""
        self.unquantize()
        take_out(self._items())
        for hooks in (self.model._forward_pre_hooks, self.model._forward_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is self]:
                del hooks[key]
                self.model._forward_hooks_always_called.pop(key, None)

    def __getstate__(self) -> dict[str, Any]:
        if self._holding:
            raise RuntimeError("a model is not to be copied or pickled inside noisy(): its weights are noise there")
        take_out(self._items())  # a copy of the model must not carry the weights of an interrupted forward
        return {**self.__dict__, "_cache": None, "_holding": False}


def attached_to(model: nn.Module) -> Attached | None:
    """What is attached to this very module, or None; a copy of a model has its own."""
    for hook in model._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Attached):
            return owner
    return None


class StoredTensors(Mapping[str, Stored]):
    """The quantized tensors as they would be stored, by name, each computed when it is asked for."""

    def __init__(self, owner: Attached) -> None:
        self._owner = owner
        self._quantized = {item.name: item for item in owner.selection.quantized}

    def __getitem__(self, name: str) -> Stored:
        return self._owner._stored_one(self._quantized[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._quantized)

    def __len__(self) -> int:
        return len(self._quantized)
