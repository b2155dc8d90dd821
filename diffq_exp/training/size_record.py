"""Size and bits in the rows and results of a run, with a quantizer or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..common.units import MB
from ..quant.quantizer import Quantizer
from ..quant.size import Size

BIN = 0.5  # bits, of the histogram


def float32_mb(model: nn.Module, learned: set[str] | frozenset[str] = frozenset()) -> float:
    """Parameters and buffers of the network at 4 bytes an entry, each tensor once, without `learned` ones."""
    tensors: dict[int, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():  # without buffers that are computed again
        if name not in learned:
            tensors[id(value)] = value
    return 4 * sum(value.numel() for value in tensors.values()) / MB


@torch.no_grad()
def size_row(model: nn.Module, quantizer: Quantizer | None, size: Size) -> dict[str, Any]:
    """{"size_mb": {"soft", "measure", "true"}, "bits": {"mean", "min", "max", "layers", "histogram"}}.

    `soft` is by the measure `size`, whose name stands beside it. Without a quantizer: the size as float32, 32 bits.
    Means of bits are over entries, not groups: a bit of a large group weighs more. The histogram is over groups.
    """
    if quantizer is None:
        mb = 4 * sum(param.numel() for param in model.parameters()) / MB
        return {
            "size_mb": {"soft": mb, "measure": size.name, "true": mb},
            "bits": {"mean": 32.0, "min": 32.0, "max": 32.0, "layers": {}},
        }
    sizes: dict[str, object] = {"soft": float(size.soft(quantizer)), "measure": size.measure(quantizer)}
    sizes["true"] = quantizer.true_model_size()
    row: dict[str, object] = {"size_mb": sizes}
    if layers := quantizer.mean_bits():
        entries = {name: param.numel() for name, param in model.named_parameters()}
        total = sum(entries[name] for name in layers)
        widths = quantizer.bits().values()
        row["bits"] = {
            "mean": sum(mean * entries[name] for name, mean in layers.items()) / total,
            "min": min(float(bits.min()) for bits in widths),
            "max": max(float(bits.max()) for bits in widths),
            "layers": layers,
            "histogram": bits_histogram(list(widths)),
        }
    return row


def bits_histogram(widths: Sequence[Tensor]) -> dict[str, object]:
    """{"edges": every half bit, "counts": the groups between two edges}; widths: bits of the groups of each tensor.

    Groups whose bits are not finite are left out.
    """
    bits = torch.cat([width.detach().flatten().float().cpu() for width in widths])
    bits = bits[torch.isfinite(bits)]
    if not bits.numel():
        return {"edges": [], "counts": []}
    low = math.floor(float(bits.min()) / BIN)
    count = max(1, math.ceil(float(bits.max()) / BIN) - low)
    counts = torch.bincount((bits / BIN - low).long().clamp(0, count - 1), minlength=count)
    return {"edges": [BIN * (low + index) for index in range(count + 1)], "counts": counts.tolist()}
