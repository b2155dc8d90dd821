"""What the stored parameters cost, by the formulas of the paper (arXiv 2104.09987), in bits and in megabytes.

1 MB = 2^20 bytes. Two counts of the same thing: the soft one is differentiable in the real-valued widths and is
the penalty of the training loss; the exact one takes the rounded widths and is counted in integers. Neither
reads a tensor back from the device. What a file really takes is another figure (see diffq_exp.storage).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .groups import sum_entries

BITS_PER_MB = 8 * 2**20
EXTREMES_BITS = 64  # min and max of a tensor, as float32
STEP_BITS = 32  # the step of LSQ, as float32
WIDTH_BITS = 8  # the byte that says how wide the entries of the table of bits are


def table_bits(widest: Tensor, min_bits: float, groups: int) -> Tensor:
    """Bits of a tensor's table of widths: 8 + G * ceil(log2(1 + widest - min_bits)), int64.

    The logarithm is taken by comparing with the powers of two: exact, on the device, and 0 where a fractional
    `min_bits` leaves less than one value.
    """
    powers = torch.tensor([2.0**k for k in range(5)], device=widest.device)  # 1 + 15 - 1 <= 2^4
    return WIDTH_BITS + groups * (1 + widest.float() - min_bits > powers).sum()


def soft_bits(bits: Tensor, entries: int, group_size: int, min_bits: float) -> Tensor:
    """Size in bits of a tensor with real-valued widths (G,), extra bits included; differentiable in them.

    The table of widths is a constant for the gradient.
    """
    table = table_bits(torch.round(bits.detach().max()), min_bits, len(bits))
    return sum_entries(bits, entries, group_size) + EXTREMES_BITS + table


def exact_bits(bits: Tensor, entries: int, group_size: int, min_bits: float) -> Tensor:
    """Size in bits of a tensor with stored widths (G,), uint8; int64."""
    table = table_bits(bits.max(), min_bits, len(bits))
    return sum_entries(bits.long(), entries, group_size) + EXTREMES_BITS + table


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    """`value` when it is a number in [low, high]. Raises: ValueError that names it and says what is allowed."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and (not whole or value == int(value))):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")
    return float(value)
