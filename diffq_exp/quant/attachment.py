"""Which weights a forward sees: hooks on the root module, so that any model goes on working by `model(x)`.

    training forward    `training_values()` of the quantizer, fresh each time (None: the float weights)
    evaluation forward  the values that would be stored, computed once and kept until a weight, a learned tensor or
                        the progress of training changes (stored_weights.py)

Of forwards inside a forward, the outermost counts. A quantizer holds one `Attachment`, and the attachment asks it
for the values; the contract is in quantizer.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor, nn

from ..stored.network import StoredModel, targets_of, write_into
from ..stored.selection import Tensors, check_unchanged
from .compiled import notice_hooks
from .misuse import ChangedInForward, Recomputed, Replica
from .stored_weights import Owner, StoredWeights, changed_in_evaluation
from .swap import Held, put, take_out

PARAMETERS, TRAINING, EVALUATION = range(3)  # what layers see
NO_BACKWARD = -1  # torch's number of the backward that is running


class Attachment:
    """Swaps the weights of `owner.model` in its forwards, and keeps the stored form while nothing changes."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.holding = False  # inside noisy()
        self._held = Held()  # the float weights, inside quantize()
        self.trained = False  # whether a training forward was run
        self._swapped = False  # whether the last one saw other weights than the parameters
        self._shown = PARAMETERS
        self._inside: FrameType | None = None  # of Python, which runs the outermost forward
        self._depth = 0  # forwards inside it
        self._looked_at: set[bool] = set()  # modes (training or not) whose first forward was seen to its end
        self._copies: list[tuple[Tensors, Tensor, Tensor]] = []  # of what such a forward sees
        self.stored = StoredWeights(owner, self._held)
        params = [id(item.param) for item in owner.selection.quantized]
        self._shared = len(set(params)) < len(params)  # one parameter has several sets of bits
        notice_hooks()
        owner.model.register_forward_pre_hook(self._before)
        owner.model.register_forward_hook(self._after, always_call=True)
        for module in self._layers():
            module.register_forward_pre_hook(self._before_layer)

    # ---- forwards -------------------------------------------------------------------------------------------

    def _before(self, module: nn.Module, args: object) -> None:
        if getattr(module, "_is_replica", False):
            raise Replica
        self._before_layer(module, args)
        if self.holding or self._is_inner():
            return
        self._hide()  # tensors that stayed after an interrupted forward
        if self.owner.model.training:
            self._show_training_values()
        elif not self._held or self._shared:
            self.check_model()
            self._show([*zip(self._items(), self.stored.all()[1], strict=True)])

    def _after(self, module: nn.Module, args: object, output: object) -> None:
        if self._depth:
            self._depth -= 1
        elif not self.holding:
            self._inside = None
            self._hide()
            self._compare()

    def _show(self, values: Sequence[tuple[Tensors, Tensor | None]]) -> None:
        """Let layers see tensors in the place of parameters; None: the parameter itself."""
        for item, value in values:
            if value is not None:
                put(item, value)
        if any(value is not None for _, value in values):
            self._shown = TRAINING if self.owner.model.training else EVALUATION
        self._copy(values)

    def _hide(self) -> None:
        """Let layers see the parameters."""
        take_out(self._items())
        self._shown = PARAMETERS

    def _copy(self, seen: Iterable[tuple[Tensors, Tensor | None]]) -> None:
        """Keep copies of what the first forward of a mode sees."""
        if torch.compiler.is_compiling() or self.owner.model.training in self._looked_at:
            return
        self._copies = [(item, value, value.detach().clone()) for item, value in seen if value is not None]

    def _compare(self) -> None:
        """Raises: ChangedInForward naming a weight that the model has changed by itself."""
        if not self._copies:
            return
        copies, self._copies = self._copies, []
        self._looked_at.add(self.owner.model.training)
        for item, value, copy in copies:
            if not torch.equal(value, copy) and not copy.isnan().any():
                raise ChangedInForward(item.name)

    def _before_layer(self, module: nn.Module, args: object) -> None:
        """Raises: Recomputed in a backward, where no forward of the model is running."""
        if self._shown == PARAMETERS and torch.compiler.is_compiling():
            return  # read first, so that compiled code checks it; it does not check where a weight is found
        if torch.compiler.is_compiling() or self.holding or self._inside is not None:
            return
        if self._swapped and self.owner.model.training and torch._C._current_graph_task_id() != NO_BACKWARD:
            raise Recomputed

    def _layers(self) -> list[nn.Module]:
        """Modules that have a quantized weight, each once."""
        modules = {id(use.module): use.module for item in self.owner.selection.quantized for use in item.uses}
        return [module for module in modules.values() if module is not self.owner.model]

    def _is_inner(self) -> bool:
        """Whether a forward of the model is running already. One that was interrupted is on no stack any more."""
        if torch.compiler.is_compiling():
            return False
        caller = sys._getframe(2)  # of torch, which runs the forward between the two hooks
        frame: FrameType | None = caller
        while frame is not None and frame is not self._inside:
            frame = frame.f_back
        if frame is None or self._inside is None:
            self._inside, self._depth = caller, 0
            return False
        self._depth += 1
        return True

    def _show_training_values(self) -> None:
        self.owner.check_ready()
        self.check_model()
        self.unquantize()
        self.stored.forget()
        self.trained = True
        values = [*zip(self.owner.selection.quantized, self.owner.training_values(), strict=True)]
        self._show(values)
        self._swapped = self._shown != PARAMETERS

    def check_model(self) -> None:
        """Raises: ModelChanged where the model has other parameters than when the quantizer was attached."""
        if not torch.compiler.is_compiling():
            check_unchanged(self.owner.model, self.owner.selection)

    @contextmanager
    def noisy(self) -> Iterator[None]:
        """See Quantizer.noisy."""
        if self.holding or not self.owner.model.training:
            raise RuntimeError("noisy() is for a model in train() mode, and not inside itself")
        self._hide()
        try:
            self.holding = True
            self._show_training_values()
            yield
        finally:
            self.holding = False
            self._hide()
        self._compare()

    def _items(self) -> tuple[Tensors, ...]:
        return changed_in_evaluation(self.owner)

    # ---- stored weights -------------------------------------------------------------------------------------

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
        self.stored.keep(tensors)

    def quantize(self) -> None:
        """See Quantizer.quantize."""
        if not self._held:
            self._hide()
            self.check_model()
            self._held.hold(self._items(), self.stored.all()[1])

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
        self._hide()
        for module in (self.owner.model, *self._layers()):
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is self]:
                    del hooks[key]
                    module._forward_hooks_always_called.pop(key, None)

    def __getstate__(self) -> dict[str, object]:
        if self.holding:
            raise RuntimeError("a model cannot be copied or pickled inside noisy(): its weights are noisy there")
        self._hide()  # a copy of the model must not carry the weights of an interrupted forward
        return {**self.__dict__, "_inside": None, "_depth": 0, "_copies": []}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        notice_hooks(attached=False)
