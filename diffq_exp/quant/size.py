"""What the stored parameters cost, by the formulas of the paper (arXiv 2104.09987), in bits and in megabytes.

1 MB = 2^20 bytes. Two counts of the same thing: the soft one is differentiable in the real-valued widths and is
the penalty of the training loss; the exact one takes the rounded widths and is counted in integers. Neither
reads a tensor back from the device. What a file really takes is another figure (see diffq_exp.storage).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .bits import Param
from .groups import sum_entries

BITS_PER_MB = 8 * 2**20
EXTREMES_BITS = 64  # min and max of a tensor, as float32
STEP_BITS = 32  # the step of LSQ, as float32
POWERS = tuple(2.0**k for k in range(5))  # 1 + 15 - 1 <= 2^4
SMALL = 2**14  # logits; tensors of fewer are worked on together
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


@lru_cache(maxsize=64)
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
    total = _SumBits.apply(tuple(entries), group_size, param, *logits)  # type: ignore[no-untyped-call]
    widest = param.bits(torch.stack([one.detach().amax() for one in logits]))  # widths grow with their logits
    table = table_bits(torch.round(widest + extra_bits), min_bits, [len(one) for one in logits]).sum()
    bits: Tensor = total + (extra_bits * sum(entries) + EXTREMES_BITS * len(logits)) + table
    return bits


class _SumBits(torch.autograd.Function):
    """The sum over all entries of their group's width; its gradient in closed form."""

    @staticmethod
    def forward(ctx: Any, entries: tuple[int, ...], group_size: int, param: Param, *logits: Tensor) -> Tensor:
        ctx.save_for_backward(*logits)
        ctx.param, ctx.sizes = param, [group_size or count for count in entries]
        counts = zip(logits, ctx.sizes, entries, strict=True)
        ctx.missing = [len(one) * size - count for one, size, count in counts]  # entries that last groups lack
        total = logits[0].new_zeros(())
        for bucket in _buckets(logits, ctx.sizes):
            total = total + param.bits(_together(logits, bucket)).sum() * ctx.sizes[bucket[0]]
        for one, missing in zip(logits, ctx.missing, strict=True):
            total = total - param.bits(one[-1]) * missing if missing else total
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, rises = ctx.saved_tensors, [grad] * len(ctx.sizes)
        for bucket in _buckets(logits, ctx.sizes):
            rise = ctx.param.bits_rise(_together(logits, bucket)).mul_(grad * ctx.sizes[bucket[0]])
            for place, part in zip(
                bucket, torch.split(rise, [len(logits[place]) for place in bucket]), strict=True
            ):
                rises[place] = part
        for rise, size, missing in zip(rises, ctx.sizes, ctx.missing, strict=True):
            if missing:
                rise[-1] *= 1 - missing / size
        return None, None, None, *rises


def _buckets(logits: Sequence[Tensor], sizes: Sequence[int]) -> list[list[int]]:
    """Positions of tensors that are worked on together: the small ones with groups of one size."""
    small: dict[int, list[int]] = {}
    large = []
    for place, (one, size) in enumerate(zip(logits, sizes, strict=True)):
        if len(one) > SMALL:
            large.append([place])
        else:
            small.setdefault(size, []).append(place)
    return large + list(small.values())


def _together(logits: Sequence[Tensor], bucket: list[int]) -> Tensor:
    return logits[bucket[0]] if len(bucket) == 1 else torch.cat([logits[place] for place in bucket])


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
