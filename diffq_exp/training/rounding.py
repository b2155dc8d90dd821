"""Rate-distortion rounding. After training, levels go towards zero where that costs less than its bytes are worth.

Around the stored weights the loss of a weight's change d is g d + h d^2 / 2, with the mean gradient g over training
batches and the diagonal h of the empirical Fisher matrix. The bits of a level are those of quant/coded_bits.py. A
level k becomes k - sign(k) while  loss < penalty * (bits saved, in MB).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from ..data import Loader
from ..quant.coded_bits import bits_of_a_step, estimated_bits
from ..quant.formula import BITS_PER_MB
from ..quant.quantizer import Quantizer
from ..stored.grids import along_channels
from ..stored.selection import Tensors
from ..tasks import Task

ROUNDS = 3  # a level moves by at most so many steps; the prices are computed again before each
SHARES = (1, 1 / 4, 1 / 16, 1 / 64, 1 / 256)  # of the penalty, tried in this order


def round_levels(quantizer: Quantizer, task: Task, loader: Loader, penalty: float, batches: int) -> dict[str, int]:
    """Move the weights of all tensors with a grid of one step; -> how many levels of each have moved.

    The moves of many levels together cost more than the sum of their costs. So loss + penalty * (estimated MB) is
    measured on the batches before and after; where it has not fallen, levels move for a share of the penalty, or
    not at all. penalty: loss per MB. batches: the first of epoch 0 of `loader`, in eval mode.
    """
    if all(_levels(quantizer, item) is None for item in quantizer.selection.quantized):
        return {}
    slopes, curvatures = _derivatives(quantizer, task, loader, batches)
    weights = [item.param.detach().clone() for item in quantizer.selection.quantized]
    before = _cost(quantizer, task, loader, penalty, batches)
    for share in SHARES:
        moved = _move(quantizer, slopes, curvatures, penalty * share)
        if _cost(quantizer, task, loader, penalty, batches) < before:
            return moved
        with torch.no_grad():
            for item, weight in zip(quantizer.selection.quantized, weights, strict=True):
                item.param.copy_(weight)
    return {}


@torch.no_grad()
def _move(
    quantizer: Quantizer, slopes: Sequence[Tensor], curvatures: Sequence[Tensor], penalty: float
) -> dict[str, int]:
    moved = {}
    for item, slope, curvature in zip(quantizer.selection.quantized, slopes, curvatures, strict=True):
        if (found := _levels(quantizer, item)) is None:
            continue
        levels, step = found
        chosen = levels.clone()
        for _ in range(ROUNDS):
            saved = bits_of_a_step(chosen.abs()) * (penalty / BITS_PER_MB)
            change = (chosen - chosen.sign() - levels) * step
            before = (chosen - levels) * step
            loss = slope * (change - before) + curvature * (change**2 - before**2) / 2
            chosen = torch.where((loss < saved) & (chosen != 0), chosen - chosen.sign(), chosen)
        moved[item.name] = int((chosen != levels).sum())
        item.param.copy_(chosen * step)
    return moved


def _levels(quantizer: Quantizer, item: Tensors) -> tuple[Tensor, Tensor] | None:
    """The levels of a tensor and its steps, which broadcast with it; None where its grid has no step."""
    stored = quantizer.store(item, item.param.detach())
    if stored.grid != "step":
        return None
    step = along_channels(stored.scales.to(item.param.dtype), item.param)
    return (stored.values() / step).round_(), step


@torch.no_grad()
def _cost(quantizer: Quantizer, task: Task, loader: Loader, penalty: float, batches: int) -> float:
    """The mean loss over the first batches, plus the penalty on the estimated size of the levels."""
    model, training = quantizer.model, quantizer.model.training
    model.eval()
    try:
        losses = [float(task.loss(model(x), y)) for x, y in islice(loader.epoch(0), batches)]
    finally:
        model.train(training)
    found = [levels for item in quantizer.selection.quantized if (levels := _levels(quantizer, item)) is not None]
    bits = sum(float(estimated_bits(levels.abs()).sum()) for levels, _ in found)
    return sum(losses) / max(len(losses), 1) + penalty * bits / BITS_PER_MB


def _derivatives(
    quantizer: Quantizer, task: Task, loader: Loader, batches: int
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The mean gradient of each quantized parameter, and the mean over examples of its square."""
    model, params = quantizer.model, [item.param for item in quantizer.selection.quantized]
    sums, squares = ([torch.zeros_like(param) for param in params] for _ in range(2))
    training, count = model.training, 0
    model.eval()
    try:
        with quantizer.enter_quantize():
            for inputs, targets in islice(loader.epoch(0), batches):
                gradients = torch.autograd.grad(task.loss(model(inputs), targets), params, allow_unused=True)
                for total, square, gradient in zip(sums, squares, gradients, strict=True):
                    if gradient is not None:
                        total += gradient
                        # the mean of B gradients has a B-th of their square
                        square += task.count(targets) * gradient**2
                count += 1
    finally:
        model.train(training)
    return [total / max(count, 1) for total in sums], [square / max(count, 1) for square in squares]
