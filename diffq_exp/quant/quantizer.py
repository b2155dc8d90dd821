"""The contract of quantizers: one class, with everything that a method defines and everything that a user calls.

A method says which tensors it learns (`learned_tensors`), what a training forward sees (`training_value`), what is
stored (`store`), what it costs (`size_bits`, `coded_bits`, `widths`), how a stored tensor is taken up again
(`adopt`), and what changes while training goes on (`at`). diffq.py, uniform.py, lsq.py, rate.py and
docs/extending.md have examples.
Optimizers are in learner.py; hooks, swapping and the cache of stored weights in attachment.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..common.units import MB
from ..storage.write import serialize
from ..stored.grids import Stored
from ..stored.network import StoredModel, describe, owner_of
from ..stored.selection import Tensors, select
from ..stored.state import pack_state, unpack_state
from .arguments import given_arguments
from .attachment import Attachment
from .coded_widths import entropy_bits
from .formula import BITS_PER_MB
from .learned import Learned, LearnedTensors
from .learner import Learner
from .stored_weights import StoredTensors
from .swap import unite

if TYPE_CHECKING:
    from typing_extensions import Self


class Quantizer(Learner):
    """Base of the quantizers; see DiffQuantizer, UniformQuantizer, LSQ and RateQuantizer.

    min_size: parameters of more than this many MB (as float32) are quantized. exclude: shell-style patterns of
    names that never are. float16: the others are stored as float16. detect_bound: a tensor under several names
    is found, quantized and counted once. A subclass sets its own attributes before it calls this `__init__`, which
    asks it for `learned_tensors`.
    Raises: ValueError for an argument out of its range, RuntimeError when the model has a quantizer already.
    """

    method = ""  # the name of the method in states and files
    measure = "formula"  # the name of what `model_size` measures
    least_dims = 0  # parameters of fewer dimensions stay float
    _given: list[str]  # arguments, as repr shows them
    coarsened = 0.0  # bits by which `coarsen` has lowered a width that is not learned

    def __new__(cls, *args: object, **keywords: object) -> Self:
        quantizer = super().__new__(cls)
        quantizer._given = given_arguments(cls.__init__, args, keywords)
        return quantizer

    def __init__(
        self,
        model: nn.Module,
        min_size: float = 0.01,
        float16: bool = False,
        exclude: Iterable[str] = (),
        detect_bound: bool = True,
    ) -> None:
        if any(owner_of(module) is not None for module in model.modules()):
            raise RuntimeError("the model has a quantizer already; detach() it before attaching another")
        self.model, self.float16, self.progress = model, float16, 0.0
        self.selection = select(model, min_size, exclude, detect_bound, self.least_dims)
        unite((*self.selection.quantized, *self.selection.floats))
        self._learned = LearnedTensors()
        self._learned.register((item, self.learned_tensors(item)) for item in self.selection.quantized)
        self.attachment = Attachment(self)

    # ---- defined by a method -------------------------------------------------------------------------------

    def learned_tensors(self, weight: Tensors) -> Mapping[str, Learned]:
        """The tensors to learn for a weight, {suffix: Learned}: any number, of any shape."""
        return {}

    def training_values(self) -> Iterable[Tensor | None]:
        """The tensors that a training forward sees in place of the quantized parameters, in their order.

        None: the parameter itself. Gradients flow through them to weights and learned tensors.
        """
        return (self.training_value(item) for item in self.selection.quantized)

    def training_value(self, item: Tensors) -> Tensor | None:
        """The same for one parameter, for methods that treat each parameter by itself."""
        return None

    @abstractmethod
    def store(self, item: Tensors, weight: Tensor) -> Stored:
        """The stored form of the float `weight` of `item`; evaluation computes with its values."""

    @abstractmethod
    def size_bits(self, exact: bool) -> Tensor | float:
        """Bits of all quantized tensors: of their stored widths if `exact`, else differentiable."""

    @abstractmethod
    def widths(self, item: Tensors) -> Tensor:
        """Real-valued widths of the groups of one parameter, (G,), differentiable; extra bits left out."""

    def coded_bits(self) -> Tensor:
        """Estimated bits of the file for all quantized tensors, differentiable where a method learns them."""
        stored = (self.store(item, item.param.detach()) for item in self.selection.quantized)
        return sum((entropy_bits(tensor) for tensor in stored), torch.zeros(()))

    def check_stored(self, item: Tensors, stored: Stored) -> None:
        """Raises: ValueError when `adopt` cannot take up `stored`. Called before anything changes."""

    def adopt(self, item: Tensors, stored: Stored) -> None:
        """Set the learned tensors of `item` to the values that `stored` was made with."""

    def coarsen(self, bits: float) -> None:
        """Make what is stored coarser by so many bits for each weight, as far as the method can; finer if bits < 0.

        It is how a file is made to fit a size. A method changes its learned tensors, or reads `self.coarsened`.
        Raises: ValueError for a method that has no way to do so.
        """
        raise ValueError(f"{type(self).__name__} cannot be made to fit a size")

    def at(self, progress: float) -> None:
        """Say that this share of training is done, 0 to 1; it is then `self.progress`.
        Called before each optimizer step, and with 1.0 at the end. A method may read `self.progress`, or extend
        this function, to change its noise, freeze its bits or begin to round. What it does must follow from
        `progress` alone, so that a resumed run continues exactly.
        """
        self.progress = progress

    # ---- weights in the model -------------------------------------------------------------------------------

    def noisy(self) -> AbstractContextManager[None]:
        """Hold one set of training weights inside a `with`: for forwards, recomputed forwards and the backward.
        For models that checkpoint activations, whose layers run again during the backward. The weights are one
        graph: losses of several forwards inside are summed for one backward.
        Raises: RuntimeError in eval mode, or inside itself.
        """
        return self.attachment.noisy()

    def quantize(self) -> None:
        """Put the stored values into the model's parameters, until `unquantize()` or a training forward."""
        self.attachment.quantize()

    def unquantize(self) -> None:
        """Put the float weights back. A parameter that was written to meanwhile keeps its new values."""
        self.attachment.unquantize()

    def enter_quantize(self) -> AbstractContextManager[None]:
        """The stored values in the model's parameters inside a `with`; a second one inside does nothing."""
        return self.attachment.enter_quantize()

    def detach(self) -> None:
        """Take hooks and learned tensors out; the model is as before, with its float weights."""
        self.attachment.detach()
        self._learned.remove()

    # ---- states ---------------------------------------------------------------------------------------------

    def stored_model(self, at_once: bool = True) -> StoredModel:
        """The network as it would be stored now; its tensors are shared with the model where they are equal.
        at_once: False computes each quantized tensor when it is read, and keeps none: less memory, but the result
        follows the model if it is trained on.
        """
        self.attachment.check_model()
        stored = self.attachment.stored
        tensors = stored.all()[0] if at_once else StoredTensors(stored, self.selection)
        return describe(self.model, self.selection, tensors, self.method, self.float16, self.learned().keys())

    def get_quantized_state(self, packed: bool = True) -> dict[str, Any]:
        """The stored network as dicts of CPU tensors and plain values, for torch.save; see stored/state.py.
        Raises: ValueError when quantized weights are not finite.
        """
        return pack_state(self.stored_model(), packed)

    def restore_quantized_state(self, state: Mapping[str, object]) -> None:
        """Make weights, buffers and learned tensors those of a state; evaluation then computes with it exactly.
        Raises: ValueError naming what does not fit; the model is then unchanged.
        """
        self.restore(unpack_state(state))

    def restore(self, stored: StoredModel) -> None:
        """`restore_quantized_state` of a state that is unpacked already."""
        self.attachment.restore(stored)

    # ---- sizes and inspection -------------------------------------------------------------------------------

    def model_size(self, exact: bool = False) -> Tensor:
        """Size of the parameters in MB by the paper's formula, a scalar tensor; buffers are not counted.
        Differentiable in the learned tensors unless `exact`, which counts the widths that are stored (float64).
        """
        bits: Tensor | float = self.float_bits
        if self.selection.quantized:
            bits = bits + self.size_bits(exact)
        if not isinstance(bits, Tensor):
            bits = torch.tensor(bits, dtype=torch.float64 if exact else None)
        return (bits.cpu().double() if exact else bits) / BITS_PER_MB

    @property
    def float_bits(self) -> int:
        """Bits of the parameters that stay float."""
        return (16 if self.float16 else 32) * sum(item.entries for item in self.selection.floats)

    def true_model_size(self) -> float:
        """`model_size(exact=True)` as a number."""
        return float(self.model_size(exact=True))

    def packed_model_size(self) -> float:
        """MB of the bit-packed levels and widths, the scales, and all that stays float, buffers included."""
        return self.stored_model().packed_bytes() / MB

    def compressed_model_size(self) -> float:
        """MB of the file that `diffq_exp.storage.save` would write."""
        return len(serialize(self)) / MB

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
        """The widths of each quantized parameter, {name: (G,)}, without a graph."""
        return {item.name: self.widths(item).detach() for item in self.selection.quantized}

    def mean_bits(self) -> dict[str, float]:
        """Mean width over the entries of each quantized parameter; a short last group weighs less than others."""
        return {name: float(widths.mean()) for name, widths in self.bits().items()}

    def __repr__(self) -> str:
        if owner_of(self.model) is not self:
            return f"{type(self).__name__}({', '.join([*self._given, 'detached'])})"
        items, widths = self.selection.quantized, self.mean_bits()
        chosen, floats = (sum(item.entries for item in some) for some in (items, self.selection.floats))
        mean = sum(widths[item.name] * item.entries for item in items) / max(chosen, 1)
        bits = f"mean {mean:.3g} bits" if items else "nothing to quantize"
        entries = f"{len(items)} tensors, {chosen:,} of {chosen + floats:,} entries"
        words = [*self._given, entries, bits, f"{self.true_model_size():.4g} MB"]
        return f"{type(self).__name__}({', '.join(words)})"
