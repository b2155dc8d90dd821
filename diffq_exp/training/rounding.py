"""Rate-distortion rounding. After training, levels go towards zero where that costs less than its bytes are worth.

Around the trained weights the loss of a weight's change d is about h d^2 / 2, with the diagonal h of the empirical
Fisher matrix on training batches. (The gradient is left out: at the end of training it is noise, and puts wrong
levels first.) The bits of a level are those of quant/coded_bits.py. Fisher's matrix is far too small where a
network knows its examples by heart, and many moves cost more than the sum of their costs; but it says which moves
come first. How many come is measured. Entries without a gradient (the words of an embedding that are in none of the
batches) stay: nothing is known of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

SHARES = tuple(4.0**-k for k in range(7))  # of the levels that may move, tried in this order
PASSES = 12  # at most; a level moves by one step in each


def round_levels(quantizer: Quantizer, task: Task, loader: Loader, penalty: float, batches: int) -> int:
    """Move the weights of all tensors with a grid of one step; -> how many steps levels moved in total.

    In each pass the largest share of levels moves with which loss + penalty * (estimated MB) falls, measured on the
    batches; the next pass begins with that share. penalty: loss per MB. batches: the first of epoch 0 of `loader`,
    in eval mode.
    """
    grids = [_Grid(quantizer, item) for item in quantizer.selection.quantized if _has_step(quantizer, item)]
    if not grids or penalty <= 0:
        return 0
    rounding = _Rounding(quantizer, grids, task, loader, penalty, batches)
    moved, shares, cost = 0, SHARES, rounding.cost()
    for _ in range(PASSES):
        prices, weights = rounding.prices(), [grid.item.param.detach().clone() for grid in grids]
        for tried, share in enumerate(shares):
            if (count := _move(grids, prices, share)) == 0:
                return moved
            if (now := rounding.cost()) < cost:
                cost, moved, shares = now, moved + count, shares[tried:]
                break
            for grid, weight in zip(grids, weights, strict=True):
                grid.put(weight)
        else:
            break
    return moved


@dataclass(frozen=True)
class _Grid:
    """A tensor whose levels are multiples of a step, or of one for each channel."""

    quantizer: Quantizer
    item: Tensors

    def levels(self) -> tuple[Tensor, Tensor]:
        """The levels and the steps, which broadcast with them."""
        stored = self.quantizer.store(self.item, self.item.param.detach())
        step = along_channels(stored.scales.to(self.item.param.dtype), self.item.param)
        return (stored.values() / step).round_(), step

    @torch.no_grad()
    def put(self, weight: Tensor) -> None:
        self.item.param.copy_(weight)


def _has_step(quantizer: Quantizer, item: Tensors) -> bool:
    return quantizer.store(item, item.param.detach()).grid == "step"


def _move(grids: Sequence[_Grid], prices: Sequence[Tensor], share: float) -> int:
    """A step towards zero for a share of the levels with a price below 1, the lowest first; -> how many moved."""
    low = torch.cat([price[price < 1] for price in prices])
    if low.numel() == 0:
        return 0
    most, moved = low.kthvalue(math.ceil(share * low.numel())).values, 0
    for grid, price in zip(grids, prices, strict=True):
        levels, step = grid.levels()
        chosen = price <= most
        grid.put(torch.where(chosen, levels - levels.sign(), levels) * step)
        moved += int(chosen.sum())
    return moved


@dataclass(frozen=True)
class _Rounding:
    quantizer: Quantizer
    grids: Sequence[_Grid]
    task: Task
    loader: Loader
    penalty: float
    batches: int

    @torch.no_grad()
    def cost(self) -> float:
        """The mean loss over the batches, plus the penalty on the estimated size of the levels."""
        with self._in_eval_mode():
            losses = [float(self._loss(*batch)) for batch in islice(self.loader.epoch(0), self.batches)]
        bits = sum(float(estimated_bits(grid.levels()[0].abs()).sum()) for grid in self.grids)
        return sum(losses) / max(len(losses), 1) + self.penalty * bits / BITS_PER_MB

    def prices(self) -> list[Tensor]:
        """For each entry, the loss of a step towards zero over what its bits are worth; inf where it stays."""
        prices = []
        for grid, curvature in zip(self.grids, self._curvatures(), strict=True):
            levels, step = grid.levels()
            worth = bits_of_a_step(levels.abs()) * (self.penalty / BITS_PER_MB)
            stays = (levels == 0) | (curvature == 0)
            prices.append(torch.where(stays, torch.inf, curvature * step**2 / 2 / worth))
        return prices

    def _curvatures(self) -> list[Tensor]:
        """The mean over examples of the square of each parameter's gradient."""
        params, count = [grid.item.param for grid in self.grids], 0
        squares = [torch.zeros_like(param) for param in params]
        with self._in_eval_mode(), self.quantizer.enter_quantize():
            for inputs, targets in islice(self.loader.epoch(0), self.batches):
                gradients = torch.autograd.grad(self._loss(inputs, targets), params, allow_unused=True)
                for square, gradient in zip(squares, gradients, strict=True):
                    if gradient is not None:  # the mean of B gradients has a B-th of their square
                        square += self.task.count(targets) * gradient**2
                count += 1
        return [square / max(count, 1) for square in squares]

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(self.quantizer.model(inputs), targets)

    @contextmanager
    def _in_eval_mode(self) -> Iterator[None]:
        training = self.quantizer.model.training
        self.quantizer.model.eval()
        try:
            yield
        finally:
            self.quantizer.model.train(training)
