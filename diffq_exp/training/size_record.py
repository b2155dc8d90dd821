"""What the rows and results of a run say of size and bits, with a quantizer or without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MB = 2**20


def float32_mb(model: nn.Module, learned: set[str] | frozenset[str] = frozenset()) -> float:
    """Parameters and buffers of the network at 4 bytes an entry, each tensor once, without `learned` ones."""
    tensors: dict[int, Tensor] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name not in learned:
            tensors[id(value)] = value
    return 4 * sum(value.numel() for value in tensors.values()) / MB


@torch.no_grad()
def size_row(model: nn.Module, quantizer: Any) -> dict[str, Any]:
    """{"size_mb": {"soft", "true"}, "bits": {"mean", "min", "max", "layers"}}; 32 bits where nothing is quantized.

    Means of bits are over entries, not groups: a bit of a large group weighs more.
    """
    if quantizer is None:
        size = 4 * sum(param.numel() for param in model.parameters()) / MB
        return {
            "size_mb": {"soft": size, "true": size},
            "bits": {"mean": 32.0, "min": 32.0, "max": 32.0, "layers": {}},
        }
    row: dict[str, Any] = {"size_mb": {"soft": float(quantizer.model_size()), "true": quantizer.true_model_size()}}
    if layers := quantizer.mean_bits():
        entries = {name: param.numel() for name, param in model.named_parameters()}
        total = sum(entries[name] for name in layers)
        widths = quantizer.bits().values()
        row["bits"] = {
            "mean": sum(mean * entries[name] for name, mean in layers.items()) / total,
            "min": min(float(bits.min()) for bits in widths),
            "max": max(float(bits.max()) for bits in widths),
            "layers": layers,
        }
    return row
