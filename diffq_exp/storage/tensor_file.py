"""Tensors by name -> a plain safetensors file, one tensor after the other: no second copy of them in memory.

The library's own `save_file` writes a file of its own beside the given one, for its owner alone to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import torch
from torch import Tensor

from ..stored.packing import Bytes
from .layout import header

TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(file: BinaryIO, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raises: OSError."""
    ordered = sorted(tensors, key=lambda name: -tensors[name].element_size())  # each where its type may begin
    entries = {
        name: (TYPES[tensors[name].dtype], list(tensors[name].shape), _bytes(tensors[name])) for name in ordered
    }
    file.write(header(entries, metadata))
    for name in ordered:
        file.write(raw(tensors[name]).data)


def raw(tensor: Tensor) -> Bytes:
    """The bytes of a tensor's entries, in their order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    entries: Bytes = flat.view(torch.uint8).numpy()
    return entries


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
