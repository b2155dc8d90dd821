"""What all quantizers share: attaching to a model, swapping weights around forwards, evaluation, states.

A quantizer hangs on the root module by two hooks, so that any model goes on working by `model(x)`:

    training forward    weights seen = `_training_value(...)`, fresh each time (none: the float weights)
    evaluation forward  weights seen = the values that would be stored, computed once and kept until a weight
                        or a learned parameter changes

Subclasses say how one tensor is trained, stored and counted; everything here is common to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .pack import bits_table_bytes, packed_levels_bytes
from .select import Tensors, select
from .size import BITS_PER_MB
from .state import StoredModel, describe, pack_state, unpack_state, write_into
from .swap import put, take_out
from .uniform import Stored


class Quantizer:
    """Base of the quantizers; see DiffQuantizer, UniformQuantizer and LSQ.

    min_size: parameters of more than this many MB (as float32) are quantized. exclude: shell-style patterns of
    names that never are. float16: the others are stored as float16. detect_bound: a tensor under several names
    is found, quantized and counted once.

    Raises: ValueError for an argument out of its range, RuntimeError when the model has a quantizer already.
    """

    method = ""  # the name of the method in states and files

    def __init__(
        self,
        model: nn.Module,
        min_size: float = 0.01,
        float16: bool = False,
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
    ) -> None:
        if any(quantizer_of(module) for module in model.modules()):
            raise RuntimeError("the model has a quantizer already; detach() it before attaching another")
        self.model = model
        self.float16 = float16
        self.selection = select(model, min_size, exclude, detect_bound)
        params = [id(item.param) for item in self.selection.quantized]
        self._shared = len(set(params)) < len(params)  # one parameter with several sets of bits
        self._holding = False  # inside noisy()
        self._floats: list[tuple[Tensors, Tensor, int | None]] = []  # inside quantize(): item, data, version
        self._cache: tuple[Any, dict[str, Stored], list[Tensor]] | None = None
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after, always_call=True)

    # ---- what a method defines ------------------------------------------------------------------------------

    def _training_value(self, item: Tensors) -> Tensor | None:
        """What a training forward sees in place of the parameter; None for the parameter itself."""
        return None

    def _store(self, item: Tensors, weight: Tensor) -> Stored:
        """The tensor as it is stored, from its float `weight`."""
        raise AssertionError("each method stores in its own way")

    def _size_bits(self, item: Tensors, exact: bool) -> Tensor | float:
        """Size of one quantized tensor, in bits."""
        raise AssertionError("each method counts in its own way")

    def _adopt(self, item: Tensors, stored: Stored) -> None:
        """Set what is learned beside the weight to what `stored` was made with."""

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
        elif not self._floats or self._shared:
            for item, value in zip(self._items(), self._stored()[1], strict=True):
                put(item, value)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self._holding:
            take_out(self._items())

    def _put_training_values(self) -> None:
        self._check_ready()
        self.unquantize()
        self._cache = None
        for item in self.selection.quantized:
            value = self._training_value(item)
            if value is not None:
                put(item, value)

    @contextmanager
    def noisy(self) -> Iterator[None]:
        """Hold one set of training weights for all that happens inside: forwards, recomputed forwards, backward.

        For models that checkpoint activations, whose layers run again during the backward.
        Raises: RuntimeError in eval mode, or inside itself.
        """
        if self._holding or not self.model.training:
            raise RuntimeError("noisy() is for a model in train() mode, and not inside itself")
        take_out(self._items())
        try:
            self._put_training_values()
            self._holding = True
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
        if self._cache is not None and key is not None and self._cache[0] == key:
            return self._cache[1:]
        with torch.inference_mode(False), torch.no_grad():
            kept = {item.name: data for item, data, _ in self._floats}
            stored = {
                item.name: self._store(item, kept.get(item.name, item.param)) for item in self.selection.quantized
            }
            values = [tensor.values() for tensor in stored.values()]
            if self.float16:
                values += [item.param.half().to(item.param.dtype) for item in self.selection.floats]
        if key is not None:
            self._cache = (key, stored, values)
        return stored, values

    def _versions(self) -> list[tuple[int, int]] | None:
        """Changes whenever a weight or a learned parameter does (`.data` written in place excepted)."""
        tensors = [item.param for item in self._items()] + list(self.learned().values())
        if any(tensor.is_inference() for tensor in tensors):
            return None
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors]

    def quantize(self) -> None:
        """Put the stored values into the model's parameters, until `unquantize()` or a training forward."""
        if self._floats:
            return
        take_out(self._items())
        for item, value in zip(self._items(), self._stored()[1], strict=True):
            self._floats.append((item, item.param.data, item.param._version))
            item.param.data = value.clone()

    def unquantize(self) -> None:
        """Put the float weights back. A parameter that was written to meanwhile keeps what was written."""
        while self._floats:
            item, data, version = self._floats.pop()
            if version is None or item.param._version == version:
                item.param.data = data.to(item.param.device)

    @contextmanager
    def enter_quantize(self) -> Iterator[None]:
        """The stored values in the model's parameters for the length of a `with`; inside another, nothing."""
        if self._floats:
            yield
            return
        self.quantize()
        try:
            yield
        finally:
            self.unquantize()

    def stored_model(self) -> StoredModel:
        """The network as it would be stored now; its tensors are shared with the model where they are equal."""
        return describe(
            self.model, self.selection, self._stored()[0], self.method, self.float16, self.learned().keys()
        )

    def get_quantized_state(self, packed: bool = True) -> dict[str, Any]:
        """The stored network as dicts of CPU tensors and plain values, for torch.save; see state.py.

        Raises: ValueError when weights are not finite.
        """
        return pack_state(self.stored_model(), packed)

    def restore_quantized_state(self, state: Mapping[str, Any]) -> None:
        """Make weights, buffers and learned parameters those of a state; evaluation then computes with it exactly.

        Raises: ValueError naming what does not fit; the model is then untouched.
        """
        self.restore(unpack_state(state))

    def restore(self, stored: StoredModel) -> None:
        """`restore_quantized_state` of a state that is unpacked already."""
        if stored.method != self.method:
            raise ValueError(f"the state was stored by method {stored.method!r}, not by {self.method!r}")
        if (names := set(stored.tensors)) != set(self.quantized_names):
            odd = sorted(names ^ set(self.quantized_names))
            raise ValueError(f"{odd[0]!r} is quantized in only one of the state and this quantizer")
        self.unquantize()
        write_into(self.model, stored, self.learned().keys())
        tensors = {}
        for item in self.selection.quantized:
            tensors[item.name] = stored.tensors[item.name].to(item.param.device)
            self._adopt(item, tensors[item.name])
        values = [item.param.detach().clone() for item in self._items()]
        self._cache = (self._versions(), tensors, values)

    # ---- sizes ----------------------------------------------------------------------------------------------

    def model_size(self, exact: bool = False) -> Tensor:
        """Size of the parameters in MB by the paper's formula, a scalar tensor; buffers are not counted.

        Differentiable in what is learned unless `exact`, which counts the widths that are stored (float64).
        """
        per_float = 16 if self.float16 else 32
        bits: Tensor | float = sum(per_float * item.entries for item in self.selection.floats)
        for item in self.selection.quantized:
            bits = bits + self._size_bits(item, exact)
        if not isinstance(bits, Tensor):
            bits = torch.tensor(bits, dtype=torch.float64 if exact else None)
        return (bits.cpu().double() if exact else bits) / BITS_PER_MB

    def true_model_size(self) -> float:
        """`model_size(exact=True)` as a number."""
        return float(self.model_size(exact=True))

    def packed_model_size(self) -> int:
        """Bytes of the bit-packed levels and widths, the scales, and all that stays float, buffers included."""
        stored = self.stored_model()
        total = sum(_packed_bytes(tensor) for tensor in stored.tensors.values())
        others = [*stored.floats.values(), *stored.buffers.values()]
        return total + sum(tensor.numel() * tensor.element_size() for tensor in others)

    def compressed_model_size(self) -> int:
        """Bytes of the file that `diffq_exp.storage.save` would write."""
        from ..storage import serialize  # storage knows the quantizers; only this convenience looks back

        return len(serialize(self))

    # ---- inspection and leaving -----------------------------------------------------------------------------

    @property
    def quantized_names(self) -> list[str]:
        """Names of the quantized parameters; of a tied one, the name under which it is stored."""
        return [item.name for item in self.selection.quantized]

    @property
    def float_names(self) -> list[str]:
        """Names of the parameters that stay float."""
        return [item.name for item in self.selection.floats]

    @property
    def tied_names(self) -> dict[str, str]:
        """{other name: the name that is stored}."""
        return dict(self.selection.tied)

    def bits(self) -> dict[str, Tensor]:
        """Real-valued widths of the groups of each quantized parameter, {name: (G,)}, extra bits left out."""
        raise AssertionError("each method has its own widths")

    def detach(self) -> None:
        """Take hooks and learned parameters out; the model is as before, with its float weights."""
        self.unquantize()
        take_out(self._items())
        for hooks in (self.model._forward_pre_hooks, self.model._forward_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, "__self__", None) is self]:
                del hooks[key]
        self.model._forward_hooks_always_called.clear()

    def __getstate__(self) -> dict[str, Any]:
        take_out(self._items())  # a copy of the model must not carry the weights of an interrupted forward
        floats = [(item, data, None) for item, data, _ in self._floats]  # a copy counts its versions anew
        return {**self.__dict__, "_cache": None, "_holding": False, "_floats": floats}

    def __repr__(self) -> str:
        chosen = sum(item.entries for item in self.selection.quantized)
        total = chosen + sum(item.entries for item in self.selection.floats)
        return (
            f"{type(self).__name__}({len(self.selection.quantized)} tensors, {chosen:,} of {total:,} entries, "
            f"{self._repr_bits()}, {self.true_model_size():.4g} MB)"
        )

    def _repr_bits(self) -> str:
        widths = list(self.bits().values())
        return f"mean {float(torch.cat(widths).mean()):.3g} bits" if widths else "nothing to quantize"


def _packed_bytes(stored: Stored) -> int:
    bits = stored.bits.cpu().numpy()
    levels = packed_levels_bytes(bits, stored.group_size, stored.levels.numel())
    return levels + bits_table_bytes(bits) + 4 * stored.scales.numel()


def quantizer_of(model: nn.Module) -> Quantizer | None:
    """The quantizer attached to this module, or None; a copy of a model has a quantizer of its own."""
    for hook in model._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Quantizer):
            return owner
    return None


def restore_quantized_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Put the weights and buffers of a quantized state into a model that may have no quantizer.

    Raises: ValueError naming what does not fit; the model is then untouched.
    """
    quantizer = quantizer_of(model)
    if quantizer is None:
        write_into(model, unpack_state(state))
    else:
        quantizer.restore_quantized_state(state)
