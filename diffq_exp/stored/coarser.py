"""A stored tensor with half as many levels: what it would be with one bit less for each weight."""

from __future__ import annotations

import torch

from .grids import Stored, store_minmax, store_step


def coarser(stored: Stored) -> Stored:
    """Its values rounded to a grid of twice the step, or, of "minmax", to levels of one bit less over its range.

    Groups of 0 bits stay as they are; those of 1 bit become one value.
    """
    values = stored.values()
    if stored.grid == "step":
        return store_step(values, 2 * stored.scales, int(stored.bits))
    ranges = stored.scales.view(-1, 2)
    if stored.top is not None:
        top = stored.top // 2
        bits = torch.full_like(stored.bits, top.bit_length()).minimum(stored.bits)
        return store_minmax(values, bits, stored.group_size, top.bit_length(), top or None, ranges)
    bits = stored.bits - (stored.bits > 0).to(stored.bits.dtype)
    return store_minmax(values, bits, stored.group_size, int(bits.max()), None, ranges)
