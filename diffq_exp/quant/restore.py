"""Put a stored network into a model that has a quantizer: everything is checked before the first weight changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..stored.network import StoredModel, targets_of, write_into

if TYPE_CHECKING:
    from .quantizer import Quantizer


def restore(quantizer: Quantizer, stored: StoredModel) -> None:
    """See Quantizer.restore. Raises: ValueError naming what does not fit; the model is then untouched."""
    if stored.method != quantizer.method:
        raise ValueError(f"the state was stored by method {stored.method!r}, not by {quantizer.method!r}")
    if odd := sorted(set(stored.tensors) ^ set(quantizer.quantized_names)):
        raise ValueError(f"{odd[0]!r} is quantized in only one of the state and this quantizer")
    for item in quantizer.selection.quantized:
        quantizer.check_stored(item, stored.tensors[item.name])
    model, learned = quantizer.model, quantizer.learned().keys()
    targets_of(model, stored, learned)  # or raise
    quantizer.unquantize()
    write_into(model, stored, learned)
    tensors = {}
    for item in quantizer.selection.quantized:
        tensors[item.name] = stored.tensors[item.name].to(item.param.device)
        quantizer.adopt(item, tensors[item.name])
    quantizer.attachment.keep(tensors)
