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

from .bits import Param
from .bucket import Bucket, bucket_of, cut
from .groups import sum_entries
from .memory import Memory

BITS_PER_MB = 8 * 2**20
EXTREMES_BITS = 64  # min and max of a tensor, as float32
STEP_BITS = 32  # the step of LSQ, as float32
POWERS = tuple(2.0**k for k in range(5))  # 1 + 15 - 1 <= 2^4
SHRINK = 8  # of buckets of logits: their memory is beside that of the noise
WIDTH_BITS = 8  # the byte that says how wide the entries of the table of bits are


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
    memory: Memory,
) -> Tensor:
    """Size in bits of tensors with the real-valued widths of their logits, (G,) each; differentiable in them.

    The tables of widths are constants for the gradient. What is computed on the way is in `memory`.
    """
    total, highest = _SumBits.apply(tuple(entries), group_size, param, memory, *logits)  # type: ignore[no-untyped-call]
    widest = torch.round(param.bits(highest) + extra_bits)  # widths grow with their logits
    table = table_bits(widest, min_bits, [one.numel() for one in logits]).sum()
    bits: Tensor = total + (extra_bits * sum(entries) + EXTREMES_BITS * len(logits)) + table
    return bits


class _SumBits(torch.autograd.Function):
    """The sum over all entries of their group's width; each tensor's highest logit, (T,), without a gradient.

    With groups of one size it is that size times the sum over groups; what last groups lack of it is taken off.
    """

    @staticmethod
    def forward(
        ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, memory: Memory, *logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*logits)
        ctx.entries, ctx.size, ctx.param, ctx.memory = entries, group_size or 1, param, memory
        total, highest = _wide(logits[0].new_zeros(())), []
        for some in cut(logits, logits, SHRINK):
            bucket = _groups_of(logits[some])
            flat = _wide(bucket.look(logits[some]))
            total = total + param.sum_bits(flat, memory.empty_like(flat)) * ctx.size
            last, missing = _short_groups(bucket.entries, entries[some], ctx.size, flat)
            if len(last):
                total = total - (param.bits(flat[last]) * missing).sum()
            highest.append(bucket.maxima(flat))
        widest = torch.cat(highest)
        ctx.mark_non_differentiable(widest)
        return total, widest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _highest: Tensor) -> tuple[Tensor | None, ...]:
        logits: Sequence[Tensor] = ctx.saved_tensors
        rises: list[Tensor] = []
        for some in cut(logits, logits, SHRINK):
            bucket = _groups_of(logits[some])
            flat = _wide(bucket.look(logits[some]))
            rise = ctx.param.bits_rise(flat, ctx.memory.empty_like(flat), ctx.memory.empty_like(flat))
            rise.mul_(grad * ctx.size)
            last, missing = _short_groups(bucket.entries, ctx.entries[some], ctx.size, flat)
            if len(last):
                rise[last] *= 1 - missing / ctx.size
            rises += bucket.split_groups(rise.to(logits[some.start].dtype))
        return None, None, None, None, *rises


def _wide(logits: Tensor) -> Tensor:
    """In float32 at least: a size in bits is soon beyond what float16 holds."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _groups_of(logits: Sequence[Tensor]) -> Bucket:
    """The bucket of which the groups are the entries."""
    return bucket_of(tuple(one.numel() for one in logits), 1)


def _short_groups(groups: Sequence[int], entries: Sequence[int], size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of other than `size` entries, and how many these lack, (S,) each; only last groups of tensors are.

    Whole tensors as groups count as groups of one entry, of which they lack a negative number.
    """
    lacks = [number * size - count for number, count in zip(groups, entries, strict=True)]
    last = [end - 1 for end, lack in zip(accumulate(groups), lacks, strict=True) if lack]
    return (
        _constant(tuple(last), like.device, torch.int64),
        _constant(tuple(lack for lack in lacks if lack), like.device, like.dtype),
    )


def exact_bits(bits: Tensor, entries: int, group_size: int, min_bits: float) -> Tensor:
    """Size in bits of a tensor with stored widths (G,), uint8; int64."""
    table = table_bits(bits.max().view(1), min_bits, [len(bits)])
    return sum_entries(bits.long(), entries, group_size) + EXTREMES_BITS + table[0]


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    """`value` when it is a number in [low, high]. Raises: ValueError that names it and says what is allowed."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and (not whole or value == int(value))):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")
    return float(value)
