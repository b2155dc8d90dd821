"""The quantizer of a model, and quantized states for models that may have none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from ..stored.network import owner_of, write_into
from ..stored.state import unpack_state
from .quantizer import Quantizer


def quantizer_of(model: nn.Module) -> Quantizer | None:
    """The quantizer attached to this very module, or None; a copy of a model has a quantizer of its own."""
    owner = owner_of(model)
    return owner if isinstance(owner, Quantizer) else None


def restore_quantized_state(model: nn.Module, state: Mapping[str, object]) -> None:
    """Put the weights and buffers of a quantized state into a model that may have no quantizer.

    Raises: ValueError naming what does not fit; the model is then untouched.
    """
    quantizer = quantizer_of(model)
    if quantizer is None:
        write_into(model, unpack_state(state))
    else:
        quantizer.restore_quantized_state(state)
