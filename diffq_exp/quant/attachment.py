"""Which weights a forward sees: hooks on the root module, so that any model goes on working by `model(x)`.

    training forward    `training_values()` of the quantizer, fresh each time (None: the float weights)
    evaluation forward  the values that would be stored, computed once and kept until a weight, a learned tensor or
                        the progress of training changes

A quantizer holds one `Attachment`, and the attachment asks it for the values; the contract is in quantizer.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..stored.grids import Stored
from ..stored.network import StoredModel, targets_of, write_into
from ..stored.selection import Selection, Tensors
from .swap import Held, put, take_out


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


class Attachment:
    """Swaps the weights of `owner.model` in its forwards, and keeps the stored form while nothing changes."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.holding = False  # inside noisy()
        self._held = Held()  # the float weights, inside quantize()
        self._cache: tuple[Any, dict[str, Stored], list[Tensor] | None] | None = None
        params = [id(item.param) for item in owner.selection.quantized]
        self._shared = len(set(params)) < len(params)  # one parameter has several sets of bits
        owner.model.register_forward_pre_hook(self._before)
        owner.model.register_forward_hook(self._after, always_call=True)

    # ---- forwards -------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: Any) -> None:
        if self.holding:
            return
        take_out(self._items())  # tensors that stayed after an interrupted forward
        if self.owner.model.training:
            self._put_training_values()
            return
        if not self._held or self._shared:
            for item, value in zip(self._items(), self.stored()[1], strict=True):
                put(item, value)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.holding:
            take_out(self._items())

    def _put_training_values(self) -> None:
        self.owner.check_ready()
        self.unquantize()
        self._cache = None
        for item, value in zip(self.owner.selection.quantized, self.owner.training_values(), strict=True):
            if value is not None:
                put(item, value)

    @contextmanager
    def noisy(self) -> Iterator[None]:
        """See Quantizer.noisy."""
        if self.holding or not self.owner.model.training:
            raise RuntimeError("noisy() is for a model in train() mode, and not inside itself")
        take_out(self._items())
        try:
            self.holding = True
            self._put_training_values()
            yield
        finally:
            self.holding = False
            take_out(self._items())

    def _items(self) -> tuple[Tensors, ...]:
        """All parameters that an evaluation forward sees changed."""
        selection = self.owner.selection
        return selection.quantized + (selection.floats if self.owner.float16 else ())

    # ---- stored weights -------------------------------------------------------------------------------------

    def stored(self) -> tuple[dict[str, Stored], list[Tensor]]:
        """The quantized tensors by name, and the values of `_items()` in evaluation."""
        key = None if torch.compiler.is_compiling() else self._versions()
        if self._cache is None or key is None or self._cache[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                items = self.owner.selection.quantized
                stored = {item.name: self.owner.store(item, self._held.weight(item)) for item in items}
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
        if self.owner.float16:
            values += [item.param.half().to(item.param.dtype) for item in self.owner.selection.floats]
        return values

    def stored_tensor(self, item: Tensors) -> Stored:
        """One quantized tensor: that of the last evaluation while nothing has changed, else a new one."""
        if self._cache is not None and self._cache[0] == self._versions():
            return self._cache[1][item.name]
        with torch.no_grad():
            return self.owner.store(item, self._held.weight(item))

    def restore(self, stored: StoredModel) -> None:
        """See Quantizer.restore: everything is checked before the first weight changes.

        Tensors that only the state has quantized are written as their values.
        """
        owner, items = self.owner, self.owner.selection.quantized
        if stored.method != owner.method:
            raise ValueError(f"the state was stored by method {stored.method!r}, not by {owner.method!r}")
        if odd := sorted({item.name for item in items} - set(stored.tensors)):
            raise ValueError(f"{odd[0]!r} is quantized by this quantizer, but not in the state")
        for item in items:
            owner.check_stored(item, stored.tensors[item.name])
        learned = owner.learned().keys()
        targets_of(owner.model, stored, learned)  # or raise
        self.unquantize()
        write_into(owner.model, stored, learned)
        tensors = {item.name: stored.tensors[item.name].to(item.param.device) for item in items}
        for item in items:
            owner.adopt(item, tensors[item.name])
        self._cache = (self._versions(), tensors, None)

    def _versions(self) -> list[tuple[float, float]] | None:
        """Changes whenever a weight, a learned tensor, the progress or a width does; not by `.data` in place."""
        tensors = [item.param for item in self._items()] + list(self.owner.learned().values())
        if any(tensor.is_inference() for tensor in tensors):
            return None
        own = self.owner.progress, self.owner.coarsened
        return [own, *((tensor.data_ptr(), tensor._version) for tensor in tensors)]

    def quantize(self) -> None:
        """See Quantizer.quantize."""
        if not self._held:
            take_out(self._items())
            self._held.hold(self._items(), self.stored()[1])

    def unquantize(self) -> None:
        """See Quantizer.unquantize."""
        self._held.release()

    @contextmanager
    def enter_quantize(self) -> Iterator[None]:
        """See Quantizer.enter_quantize."""
        if self._held:
            yield
            return
        self.quantize()
        try:
            yield
        finally:
            self.unquantize()

    def detach(self) -> None:
        """Take the hooks out; the model computes with its float weights again."""
        self.unquantize()
        take_out(self._items())
        model = self.owner.model
        for hooks in (model._forward_pre_hooks, model._forward_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is self]:
                del hooks[key]
                model._forward_hooks_always_called.pop(key, None)

    def __getstate__(self) -> dict[str, Any]:
        if self.holding:
            raise RuntimeError("a model cannot be copied or pickled inside noisy(): its weights are noisy there")
        take_out(self._items())  # a copy of the model must not carry the weights of an interrupted forward
        return {**self.__dict__, "_cache": None}


class StoredTensors(Mapping[str, Stored]):
    """The quantized tensors in their stored form, by name; each is computed when it is read."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._quantized = {item.name: item for item in attachment.owner.selection.quantized}

    def __getitem__(self, name: str) -> Stored:
        return self._attachment.stored_tensor(self._quantized[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._quantized)

    def __len__(self) -> int:
        return len(self._quantized)
