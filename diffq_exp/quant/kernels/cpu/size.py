"""The soft size of logits in a CPU's memory; see ../compiled.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..autograd import Sizes
from ..operands import addresses
from ..tiles import group_sizes
from . import kernels
from .threads import run


def sum_bits(sizes: Sizes, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The bits of all entries, (); each tensor's highest logit, (T,)."""
    plan = sizes.plan
    sums, highs = np.empty((2, len(plan.pieces)), np.float32)
    run(kernels.sum_bits, plan, logits=addresses(logits), sums=sums, highs=highs, **_told(sizes))
    total = torch.tensor(sums.sum(dtype=np.float64), dtype=torch.float32, device="cpu")
    return total, torch.from_numpy(np.maximum.reduceat(highs, plan.first_of_tensor))


def pass_back_bits(sizes: Sizes, logits: Sequence[Tensor], factor: Tensor, to_logits: Sequence[Tensor]) -> None:
    """Write the gradient of `factor`, (), times the bits."""
    tables = {"logits": addresses(logits), "grad_logits": addresses(to_logits)}
    run(kernels.pass_back_bits, sizes.plan, factor=factor.data_ptr(), **tables, **_told(sizes))


def _told(sizes: Sizes) -> dict[str, Any]:
    size, last = group_sizes(sizes.entries, sizes.group_size)
    return {"size": size, "last": last, **sizes.param.fields}
