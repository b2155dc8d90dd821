"""What all quantizers offer: states, sizes and inspection, on top of the swapping of weights in attach.py.

Subclasses say how one tensor is trained, stored and counted; everything here is common to them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..storage.write import serialize
from ..stored.grids import Stored
from ..stored.network import StoredModel, StoresModel, describe, targets_of, write_into
from ..stored.selection import Tensors
from ..stored.state import pack_state, unpack_state
from .attachment import Attached, StoredTensors, attached_to
from .formula import BITS_PER_MB


class Quantizer(Attached, StoresModel):
    """Base of the quantizers; see DiffQuantizer, UniformQuantizer and LSQ.

    min_size: parameters of more than this many MB (as float32) are quantized. exclude: shell-style patterns of
    names that never are. float16: the others are stored as float16. detect_bound: a tensor under several names
    is found, quantized and counted once.

    Raises: ValueError for an argument out of its range, RuntimeError when the model has a quantizer already.
    """

    method = ""  # the name of the method in states and files

    @abstractmethod
    def _quantized_bits(self, exact: bool) -> Tensor | float:
        """Size of all quantized tensors, in bits."""

    def _adopt(self, item: Tensors, stored: Stored) -> None:
        """Set what is learned beside the weight to what `stored` was made with."""

    def _check_groups(self, name: str, stored: Stored) -> None:
        """Raises: ValueError when `_adopt` could not take up the groups of what is stored."""

    # ---- states ---------------------------------------------------------------------------------------------

    def stored_model(self, at_once: bool = True) -> StoredModel:
        """The network as it would be stored now; its tensors are shared with the model where they are equal.

        at_once: False computes each quantized tensor when it is looked at, and keeps none: less memory, but not
        a picture of this moment if the model is trained on.
        """
        tensors = self._stored()[0] if at_once else StoredTensors(self)
        return describe(self.model, self.selection, tensors, self.method, self.float16, self.learned().keys())

    def get_quantized_state(self, packed: bool = True) -> dict[str, Any]:
        """The stored network as dicts of CPU tensors and plain values, for torch.save; see state.py.

        Raises: ValueError when quantized weights are not finite.
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
        for item in self.selection.quantized:
            self._check_groups(item.name, stored.tensors[item.name])
        targets_of(self.model, stored, self.learned().keys())  # or raise, while nothing is changed
        self.unquantize()
        write_into(self.model, stored, self.learned().keys())
        tensors = {}
        for item in self.selection.quantized:
            tensors[item.name] = stored.tensors[item.name].to(item.param.device)
            self._adopt(item, tensors[item.name])
        self._cache = (self._versions(), tensors, None)

    # ---- sizes ----------------------------------------------------------------------------------------------

    def model_size(self, exact: bool = False) -> Tensor:
        """Size of the parameters in MB by the paper's formula, a scalar tensor; buffers are not counted.

        Differentiable in what is learned unless `exact`, which counts the widths that are stored (float64).
        """
        per_float = 16 if self.float16 else 32
        bits: Tensor | float = sum(per_float * item.entries for item in self.selection.floats)
        if self.selection.quantized:
            bits = bits + self._quantized_bits(exact)
        if not isinstance(bits, Tensor):
            bits = torch.tensor(bits, dtype=torch.float64 if exact else None)
        return (bits.cpu().double() if exact else bits) / BITS_PER_MB

    def true_model_size(self) -> float:
        """`model_size(exact=True)` as a number."""
        return float(self.model_size(exact=True))

    def packed_model_size(self) -> int:
        """Bytes of the bit-packed levels and widths, the scales, and all that stays float, buffers included."""
        return self.stored_model().packed_bytes()

    def compressed_model_size(self) -> int:
        """Bytes of the file that `diffq_exp.storage.save` would write."""
        return len(serialize(self))

    # ---- inspection -----------------------------------------------------------------------------------------

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

    @abstractmethod
    def bits(self) -> dict[str, Tensor]:
        """Real-valued widths of the groups of each quantized parameter, {name: (G,)}, extra bits left out."""

    def mean_bits(self) -> dict[str, float]:
        """Mean width over the entries of each quantized parameter; a short last group weighs less than others."""
        return {name: float(widths.mean()) for name, widths in self.bits().items()}

    def __repr__(self) -> str:
        chosen = sum(item.entries for item in self.selection.quantized)
        total = chosen + sum(item.entries for item in self.selection.floats)
        return (
            f"{type(self).__name__}({len(self.selection.quantized)} tensors, {chosen:,} of {total:,} entries, "
            f"{self._repr_bits()}, {self.true_model_size():.4g} MB)"
        )

    def _repr_bits(self) -> str:
        items, widths = self.selection.quantized, self.mean_bits()
        if not items:
            return "nothing to quantize"
        mean = sum(widths[item.name] * item.entries for item in items) / sum(item.entries for item in items)
        return f"mean {mean:.3g} bits"


def quantizer_of(model: nn.Module) -> Quantizer | None:
    """The quantizer attached to this very module, or None; a copy of a model has a quantizer of its own."""
    attached = attached_to(model)
    return attached if isinstance(attached, Quantizer) else None


def restore_quantized_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Put the weights and buffers of a quantized state into a model that may have no quantizer.

    Raises: ValueError naming what does not fit; the model is then untouched.
    """
    quantizer = quantizer_of(model)
    if quantizer is None:
        write_into(model, unpack_state(state))
    else:
        quantizer.restore_quantized_state(state)
