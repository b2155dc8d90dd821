"""The bits that the coder of the file spends on levels of several widths, as DiffQ has them.

The levels of each width are coded by their own distribution (storage/entropy.py), and so is the table of widths.
So the value of the estimate is an entropy, of the levels that would be stored now. It has no gradient. Its gradient
is that of a model: the distances of weights from their mean, in steps, are discrete Laplace variables
(coded_bits.py) with one mean for all groups of a width,

    levels of a group:  n constant(m) + slope(m) sum |w - mean| / step,      step = range / (2^b - 1)

so that a bit less for a group saves about a bit for each of its weights where levels are many, and next to nothing
where they are few.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..stored.grids import Stored
from ..stored.groups import spread_groups, sum_groups
from ..stored.packing import MAX_STORED_BITS
from .coded_bits import bits_of_mean, mean_size

LN2 = math.log(2.0)
SCALE_BITS = 32  # of a float32 number of `Stored.scales`
MODEL_BITS = 56  # about what the model of a distribution takes
TABLE_BITS = 6  # wider levels are counted in 2^6 cells: about the finest that a model of storage/entropy.py tells
WIDTHS = MAX_STORED_BITS + 1


def entropy_bits(stored: Stored) -> Tensor:
    """Bits of the levels by width, of the table of widths and of the scales of a tensor, a scalar; no gradient."""
    entries = len(stored.levels)
    widths = spread_groups(stored.bits.long(), entries, stored.group_size)  # of entries
    fine = (widths - TABLE_BITS).clamp_(min=0)  # the lowest bits of a level, which are taken as evenly likely
    places = widths * 2**TABLE_BITS + (stored.levels.long() >> fine)
    levels = _log_sum(torch.bincount(widths)) - _log_sum(torch.bincount(places)) + fine.sum()
    groups = torch.bincount(stored.bits.long())  # of each width
    table = _log_sum(groups.sum()) - _log_sum(groups)
    runs = (groups[1:] > 0).sum() + ((groups > 0).sum() > 1).long()  # of levels, and of the table
    total: Tensor = levels + table + MODEL_BITS * runs + SCALE_BITS * len(stored.scales)
    return total


def _log_sum(counts: Tensor) -> Tensor:
    total: Tensor = torch.special.xlogy(counts.float(), counts.float()).sum()
    return total / LN2


def coded_bits_of_widths(weight: Tensor, widths: Tensor, stored: Stored) -> Tensor:
    """`entropy_bits` of a weight on the grid "minmax", differentiable in it and in its widths (G,)."""
    flat, (low, high) = weight.reshape(-1).float(), stored.scales
    distances = sum_groups((flat - flat.detach().mean()).abs(), stored.group_size)  # (G,)
    scale = torch.where(high > low, high - low, torch.ones_like(low))
    sums = distances * torch.expm1(widths.float() * LN2) / scale
    counts = sum_groups(torch.ones_like(flat), stored.group_size)
    classes, nothing = stored.bits.long(), torch.zeros(WIDTHS, device=flat.device)
    mean = mean_size(nothing.index_add(0, classes, sums.detach()), nothing.index_add(0, classes, counts))
    constant, slope = bits_of_mean(mean)
    model = (counts * constant[classes] + sums * slope[classes]).sum()
    return model + (entropy_bits(stored).to(model.device) - model).detach()
