"""Training values and coded sizes of weights that have one step each: rate.py and coded_bits.py in compiled loops.

The size is made of the sums of the levels' sizes in each block (blocks.py). Training values and sums come from one
node of autograd's graph: so a forward reads the weights once, and a backward writes their gradients once. The node
makes both at a forward, and `StepKernels` keeps the sums for the size that is asked next. If a weight or a step has
changed in between, or where no forward was, a size has a node of its own.

cpu/coded_kernels.py has the loops. A GPU has none: there, all goes by torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..coded_bits import kernels_shape, row_and_column_means
from ..noise import Noise, NoNoise, new_key, rank
from ..noisy_weights import run_early
from .autograd import BUNDLE
from .blocks import Blocks, blocks_of
from .cells import CELLS_OF
from .dispatch import by_kernels
from .operands import checked, laid_out
from .tiles import bundle_slices

State = tuple[bool, list[tuple[int, int, int, bool]]]  # of `_state`

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bundle:
    """Weights that are one node, and what it makes of them: training values, sums of sizes, or both.

    noise: its kind; None: weights are rounded. key, number, rank: those of autograd.Bundle.
    """

    blocks: Blocks
    noise: type[Noise] | None
    values: bool
    sums: bool
    key: int = 0
    number: int = 0
    rank: int = 0


def serves(weights: Sequence[Tensor], log_steps: Sequence[Tensor], noise: Noise | None = None) -> bool:
    """Whether kernels can process all of them: one step each, a shipped noise if any, and see `by_kernels`."""
    tensors = [*weights, *log_steps]
    if not weights or not (noise is None or type(noise) in CELLS_OF) or not by_kernels(tensors):
        return False
    single = all(log_step.numel() == 1 for log_step in log_steps)
    return single and weights[0].device == CPU and not any(tensor.is_inference() for tensor in tensors)


class StepKernels:
    """Training values and sizes of the weights of a quantizer; a copy or a pickle keeps no sums.

    `serves` must hold for all weights and logarithms of steps, (1,) each.
    """

    def __init__(self) -> None:
        self._kept: tuple[State, list[Tensor]] | None = None

    def __reduce__(self) -> tuple[type[StepKernels], tuple[()]]:
        return StepKernels, ()

    def values(
        self, weights: Sequence[Tensor], log_steps: Sequence[Tensor], noise: Noise | None, apart: bool
    ) -> list[Tensor]:
        """What a training forward sees, in the shapes and memory formats of the weights. noise: None to round.

        apart: each weight is a node of its own, for backwards that go through the graph tensor by tensor; the noise
        is the same.
        """
        keep, kind = torch.is_grad_enabled() and not apart, None if noise is None else type(noise)
        values, sums = values_and_sums(weights, log_steps, kind, sums=keep, apart=apart)
        self._kept = (_state(weights, log_steps, noise is None), sums) if keep else None
        return values

    def bits(self, weights: Sequence[Tensor], log_steps: Sequence[Tensor], rounded: bool) -> Tensor:
        """The estimated bits of all levels, (), or, if `rounded`, of the nearest whole ones, straight through."""
        sums = self._kept_sums(_state(weights, log_steps, rounded)) if torch.is_grad_enabled() else None
        if sums is None:
            kind = None if rounded else NoNoise
            _, sums = values_and_sums(weights, log_steps, kind, values=False)
        bits: Tensor = EstimateBits.apply(_blocks(weights), *sums)  # type: ignore[no-untyped-call]
        return bits

    def _kept_sums(self, state: State) -> list[Tensor] | None:
        """Those of the last forward, once, if they are of this state."""
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] == state else None


def _state(weights: Sequence[Tensor], log_steps: Sequence[Tensor], rounded: bool) -> State:
    """Changes whenever sums, or what their gradients go to, would."""
    tensors = (*weights, *log_steps)
    return rounded, [(id(one), one.data_ptr(), one._version, one.requires_grad) for one in tensors]


def _blocks(weights: Sequence[Tensor]) -> Blocks:
    return blocks_of(tuple(kernels_shape(weight.shape) for weight in weights))


def values_and_sums(
    weights: Sequence[Tensor],
    log_steps: Sequence[Tensor],
    noise: type[Noise] | None,
    values: bool = True,
    sums: bool = True,
    apart: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """The training values, and each block's sum of sizes of levels, (rows, columns) each; none of what is False."""
    drawn = values and noise is not None
    key, number, own_rank = (new_key(), 0, rank()) if drawn else (0, 0, 0)
    made, added = list[Tensor](), list[Tensor]()
    for some in bundle_slices(weights, 0 if apart else BUNDLE["cpu"]):
        blocks, count = _blocks(weights[some]), len(weights[some])
        bundle = Bundle(blocks, noise, values, sums, key, number, own_rank)
        number += len(blocks.tiles)
        results: tuple[Tensor, ...] = ValuesAndSums.apply(bundle, *log_steps[some], *weights[some])  # type: ignore[no-untyped-call]
        if values:
            run_early(results[0])
            made += results[:count]
        if sums:
            added += results[-count:]
    return made, added


class ValuesAndSums(torch.autograd.Function):
    """A bundle, the logarithms of its steps, its weights -> its training values and its sums, or either.

    Values and sums may have a backward each. So the tensors are not saved for one backward alone, and whether they
    were changed is looked at here.
    """

    @staticmethod
    def forward(ctx: Any, bundle: Bundle, *tensors: Tensor) -> tuple[Tensor, ...]:
        blocks, count = bundle.blocks, len(tensors) // 2
        steps, weights = _steps_and_weights(blocks, tensors)
        values = [torch.empty_like(weight) if bundle.values else None for weight in weights]
        sums = [_new_sums(blocks, tensor) if bundle.sums else None for tensor in range(count)]
        _backend().values_and_sums(bundle, steps, weights, values, sums)
        ctx.bundle, ctx.steps, ctx.tensors = bundle, steps, tensors
        ctx.versions = [tensor._version for tensor in tensors]
        ctx.set_materialize_grads(False)
        pairs = zip(values, tensors[count:], strict=True)
        return (
            *(laid_out(value, weight) for value, weight in pairs if value is not None),
            *(one if one.dim() == 2 else one.sum(2) for one in sums if one is not None),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if ctx.versions != [tensor._version for tensor in ctx.tensors]:
            raise RuntimeError("a weight or its step was changed in place between forward and backward")
        bundle, blocks, count = ctx.bundle, ctx.bundle.blocks, len(ctx.tensors) // 2
        _, weights = _steps_and_weights(blocks, ctx.tensors)
        to_values = checked(grads[:count] if bundle.values else (None,) * count, blocks.entries, CPU)
        slopes = _slopes(blocks, grads[-count:] if bundle.sums else (None,) * count)
        wanted = ctx.needs_input_grad[1 + count :]
        to_weights = [  # without a slope it is that of the value itself
            torch.empty_like(weight) if slope is not None and needed else None
            for weight, slope, needed in zip(weights, slopes, wanted, strict=True)
        ]
        to_steps = _backend().values_and_sums_backward(bundle, ctx.steps, weights, to_values, slopes, to_weights)
        pairs = list(zip(to_values, slopes, strict=True))
        return (
            None,
            *(
                None if value is slope is None else to_steps[i].view(1).clone()
                for i, (value, slope) in enumerate(pairs)
            ),
            *(value if slope is None else own for own, (value, slope) in zip(to_weights, pairs, strict=True)),
        )


def _backend() -> ModuleType:
    """Imported now, as numba takes its time."""
    return import_module(".cpu.coded_backend", __package__)


def _steps_and_weights(blocks: Blocks, tensors: Sequence[Tensor]) -> tuple[NDArray[np.float32], list[Tensor]]:
    """The steps, float32 (T,), and the weights, ready for kernels."""
    count = len(blocks.shapes)
    log_steps = torch.cat([one.view(1) for one in checked(tensors[:count], [1] * count, CPU)])
    return log_steps.detach().exp().numpy(), checked(tensors[count:], blocks.entries, CPU)


def _new_sums(blocks: Blocks, tensor: int) -> Tensor:
    """Room for the sums of a tensor: (rows, columns), or (rows, columns, parts) if its blocks have several."""
    (rows, columns, _), parts = blocks.shapes[tensor], blocks.parts[tensor]
    shape = (rows, columns) if parts == 1 else (rows, columns, parts)
    return torch.empty(shape, dtype=torch.float32, device=CPU)


def _slopes(blocks: Blocks, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The gradients of blocks' sums, ready for kernels: one for each part."""
    ready = checked(grads, [rows * columns for rows, columns, _ in blocks.shapes], CPU)
    pairs = zip(ready, blocks.parts, strict=True)
    return [one if one is None or parts == 1 else one.view(-1).repeat_interleave(parts) for one, parts in pairs]


class EstimateBits(torch.autograd.Function):
    """The sums of all blocks, (rows, columns) for each weight -> the bits of coded_bits.estimated_bits, ()."""

    @staticmethod
    def forward(ctx: Any, blocks: Blocks, *sums: Tensor) -> Tensor:
        pairs = zip(sums, blocks.shapes, strict=True)
        of_row, of_column = zip(*(row_and_column_means(one, shape[2]) for one, shape in pairs), strict=True)
        slopes = [torch.empty_like(one) for one in sums]
        bits: Tensor = _backend().estimate_bits(blocks, sums, of_row, of_column, slopes)
        ctx.save_for_backward(*slopes)
        return bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(grad * slope for slope in ctx.saved_tensors)
