"""The three functions between tensors in a CPU's memory that ../coded.py calls; their loops: coded_kernels.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...noise import Uniform
from ..blocks import Blocks
from ..cells import Array, cells_of
from ..coded import Bundle
from ..operands import addresses
from . import coded_kernels as kernels
from .backend import add_up
from .threads import run

Operands = Sequence[Tensor | None]


def values_and_sums(bundle: Bundle, steps: Array, weights: Operands, values: Operands, sums: Operands) -> None:
    """Write the training values, and the sums of the sizes of levels, but for those that are None."""
    operands = {"weight": addresses(weights), "noisy": addresses(values), "blocks": addresses(sums)}
    run(kernels.values_and_sums, bundle.blocks, steps=steps, **operands, **_noise(bundle))


def values_and_sums_backward(
    bundle: Bundle, steps: Array, weights: Operands, grads: Operands, slopes: Operands, to_weights: Operands
) -> Tensor:
    """Write the weights' gradients, but for those that are None; -> those of the logarithms of the steps, (T,).

    grads: those of the training values. slopes: those of the sums.
    """
    tiling, sums = bundle.blocks, np.empty(len(bundle.blocks.tiles), np.float32)
    given = {"weight": addresses(weights), "grad": addresses(grads), "slopes": addresses(slopes)}
    written = {"grad_weight": addresses(to_weights), "sums": sums}
    run(kernels.values_and_sums_backward, tiling, steps=steps, **given, **written, **_noise(bundle))
    return torch.from_numpy(add_up(sums, tiling.first_of_tensor))


def estimate_bits(
    blocks: Blocks, sums: Operands, of_row: Operands, of_column: Operands, slopes: Operands
) -> Tensor:
    """The bits of all levels, (); write what a level costs more than the next smaller one, for each block."""
    tiling, bits = blocks.of_blocks, np.empty(len(blocks.of_blocks.tiles), np.float32)
    given = {"blocks": addresses(sums), "of_row": addresses(of_row), "of_column": addresses(of_column)}
    _, columns, places = np.array(blocks.shapes).T
    shapes = {"columns": columns.copy(), "places": places.astype(np.float32)}
    run(kernels.estimate_bits, tiling, **given, **shapes, slopes=addresses(slopes), sums=bits)
    return torch.tensor(bits.sum(dtype=np.float64), dtype=torch.float32, device="cpu")


def _noise(bundle: Bundle) -> dict[str, Any]:
    """The operands that say what becomes of the weights."""
    if bundle.noise is None:
        return {"rounded": 1}
    numbers = {"key": bundle.key, "number": bundle.number, "rank": bundle.rank}
    return numbers if bundle.noise is Uniform else {**numbers, "cells": cells_of(bundle.noise)}
