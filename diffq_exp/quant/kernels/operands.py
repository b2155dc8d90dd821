"""Operands of kernels. They get addresses and check nothing, so tensors are checked, and made ready, here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cells import Array

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions
HUGE = 2**30  # entries, beyond which kernels that compute places in 32 bits would be wrong


def checked(
    tensors: Sequence[Tensor | None], entries: Sequence[int], device: torch.device, channels_last: bool = False
) -> list[Any]:
    """Tensors as kernels read them: row-major, without a pending sign, with memory of their own; None for None.

    Sparse gradients, of an nn.Embedding(sparse=True), become dense ones. channels_last: tensors of that format stay
    as they are.

    Raises: RuntimeError if a tensor is not float32 on `device` with its number of entries, as after `model.half()`
    between forward and backward, which autograd does not notice.
    """
    pairs = zip(tensors, entries, strict=True)
    return [None if tensor is None else _checked(tensor, count, device, channels_last) for tensor, count in pairs]


def _checked(tensor: Tensor, entries: int, device: torch.device, channels_last: bool) -> Tensor:
    if not (tensor.dtype == torch.float32 and tensor.device == device and tensor.numel() == entries):
        actual = f"{tensor.dtype} on {tensor.device} with {tensor.numel()} entries"
        raise RuntimeError(
            f"{actual} instead of torch.float32 on {device} with {entries}: a weight or its logits were replaced, "
            "by model.half() perhaps, after the quantizer was attached or between forward and backward"
        )
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if not (channels_last and is_channels_last(tensor)):
        tensor = tensor.contiguous()
    tensor = tensor.resolve_neg()
    return tensor if tensor.data_ptr() else tensor.clone()  # autograd has zeros without memory


def is_channels_last(tensor: Tensor) -> bool:
    """Whether its memory is (outer, inner, channels), and not row-major as well; False for huge tensors."""
    wanted = CHANNELS_LAST.get(tensor.dim())
    if wanted is None or tensor.is_contiguous() or tensor.numel() > HUGE:
        return False
    return tensor.is_contiguous(memory_format=wanted)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor in the memory format of another."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def addresses(tensors: Sequence[Tensor | None]) -> Array:
    """The addresses of their memory, int64 (T,); 0 for None."""
    return np.array([0 if tensor is None else tensor.data_ptr() for tensor in tensors])
