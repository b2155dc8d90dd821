"""What the stored parameters cost, by the formulas of the paper (arXiv 2104.09987), in bits and in megabytes.

1 MB = 2^20 bytes. Two counts of the same thing: the soft one is differentiable in the real-valued widths and is
the penalty of the training loss; the exact one takes the rounded widths and is counted in integers. Neither
reads a tensor back from the device. What a file really takes is another figure (see diffq_exp.storage).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..common.units import MB
from ..stored.groups import sum_entries
from .bits import Param
from .kernels.autograd import SumBits
from .kernels.dispatch import by_kernels
from .kernels.tiles import bundle_slices

BITS_PER_MB = 8 * MB
EXTREMES_BITS = 64  # min and max of a tensor, as float32
STEP_BITS = 32  # the step of LSQ, as float32
JOINED = 2**21  # logits that are concatenated at a time
POWERS = tuple(2.0**k for k in range(5))  # 1 + 15 - 1 <= 2^4
WIDTH_BITS = 8  # a byte: how wide the entries of the table of bits are


def table_bits(widest: Tensor, min_bits: float, groups: Sequence[int]) -> Tensor:
    """Bits of tables of widths, one per tensor, (T,): 8 + G * ceil(log2(1 + widest - min_bits)), int64.

    The logarithm is taken by comparing with the powers of two: exact, on the device, and 0 where a fractional
    `min_bits` leaves less than one value.
    """
    powers = _constant(POWERS, widest.device, torch.float32)
    logarithms = (1 + widest.float()[:, None] - min_bits > powers).sum(1)
    return WIDTH_BITS + _constant(tuple(groups), widest.device, torch.int64) * logarithms


def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Numbers on a device; kept on a GPU, since copying them there at every step would wait for it."""
    if device.type != "cuda" or torch.compiler.is_compiling():
        return torch.tensor(values, device=device, dtype=dtype)
    return _kept(values, device, dtype)


@lru_cache(maxsize=4096)
def _kept(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype)


def soft_bits(
    logits: Sequence[Tensor],
    entries: Sequence[int],
    group_size: int,
    param: Param,
    extra_bits: float,
    min_bits: float,
) -> Tensor:
    """Size in bits of tensors with the real-valued widths of their logits, (G,) each; differentiable in them.

    The tables of widths are constants for the gradient.
    """
    total, highest = sum_bits(logits, entries, group_size, param)
    widest = torch.round(param.bits(highest) + extra_bits)  # widths grow with their logits
    table = table_bits(widest, min_bits, [tensor.numel() for tensor in logits]).sum()
    return total + (extra_bits * sum(entries) + EXTREMES_BITS * len(logits)) + table


def sum_bits(
    logits: Sequence[Tensor], entries: Sequence[int], group_size: int, param: Param
) -> tuple[Tensor, Tensor]:
    """The sum over all entries of their group's width, differentiable; each tensor's highest logit, (T,), not."""
    function: type[torch.autograd.Function] = SumBits if by_kernels(logits) else _SumBits
    sums: tuple[Tensor, Tensor] = function.apply(tuple(entries), group_size, param, *logits)
    return sums


class _SumBits(torch.autograd.Function):
    """Widths times entries: all groups count `size` entries, last groups are weighed by their share."""

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*logits)
        ctx.entries, ctx.size, ctx.param = entries, float(group_size or 1), param
        total = _wide(logits[0].new_zeros(()))
        for some in bundle_slices(logits, JOINED):
            flat = _wide(torch.cat(list(logits[some])))
            bits = param.bits(flat)
            _weigh_last_(bits, logits[some], entries[some], ctx.size)
            total = total + bits.sum() * ctx.size
        highest = torch.stack([_wide(tensor).amax() for tensor in logits])
        ctx.mark_non_differentiable(highest)
        return total, highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        logits: Sequence[Tensor] = ctx.saved_tensors
        slopes: list[Tensor] = []
        for some in bundle_slices(logits, JOINED):
            slope = ctx.param.bits_slope(_wide(torch.cat(list(logits[some])))).mul_(grad * ctx.size)
            _weigh_last_(slope, logits[some], ctx.entries[some], ctx.size)
            groups = [tensor.numel() for tensor in logits[some]]
            slopes += slope.to(logits[some.start].dtype).split(groups)
        return None, None, None, *slopes


def _wide(logits: Tensor) -> Tensor:
    """In float32 at least: a size in bits is soon beyond what float16 holds."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _weigh_last_(widths: Tensor, logits: Sequence[Tensor], entries: Sequence[int], size: float) -> None:
    """Multiply the widths of last groups by their entries / `size`. Whole tensors: size 1."""
    groups = [tensor.numel() for tensor in logits]
    for end, number, count in zip(accumulate(groups), groups, entries, strict=True):
        share = (count - (number - 1) * size) / size
        if share != 1:
            widths[end - 1].mul_(share)


def exact_bits(bits: Tensor, entries: int, group_size: int, min_bits: float) -> Tensor:
    """Size in bits of a tensor with stored widths (G,), uint8; int64."""
    table = table_bits(bits.max().view(1), min_bits, [len(bits)])
    return sum_entries(bits.long(), entries, group_size) + EXTREMES_BITS + table[0]
