"""The optimizers of a run as one object: weights, and the learned tensors of a quantizer in groups of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from ..quant.quantizer import Quantizer
from .schedule import Schedule

OF_A_SHAPE = {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg"}  # that of the parameter


class Optimizers:
    """One or two optimizers that step at the same time.

    It shows `param_groups` and `step()`, all that a gradient scaler needs of an optimizer. So gradients of
    weights and bits are unscaled at the same time, and both skip the step if a gradient is not finite.
    """

    def __init__(
        self,
        optimizers: list[Optimizer],
        learned: Iterable[nn.Parameter] = (),
        own_rate: Iterable[nn.Parameter] = (),
    ) -> None:
        """learned: the tensors of a quantizer. own_rate: those whose own rate schedules leave alone."""
        self.optimizers = optimizers
        self._learned, self._own_rate = ({id(param) for param in params} for params in (learned, own_rate))
        self._base_rates = [group["lr"] for group in self.param_groups]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def params(self, *, learned: bool) -> list[nn.Parameter]:
        """The weights, or the learned tensors of the quantizer."""
        params = [param for group in self.param_groups for param in group["params"]]
        return [param for param in params if (id(param) in self._learned) == learned]

    def clip(self, norm: float) -> None:
        """Clip the gradient norms of weights and of bits apart, so that neither can spoil the other."""
        for learned in (False, True):
            if params := self.params(learned=learned):
                nn.utils.clip_grad_norm_(params, norm)

    def set_rates(self, schedule: Schedule, epoch: float, epochs: int) -> None:
        """Set the learning rates for a real-valued epoch; those of the bits stay unless the schedule has them."""
        factor = schedule.factor(epoch, epochs)
        for group, base in zip(self.param_groups, self._base_rates, strict=True):
            fixed = not schedule.bits and any(id(param) in self._own_rate for param in group["params"])
            group["lr"] = base if fixed else base * factor

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Undo `state_dict`. Raises: ValueError for a state of another shape, which torch would compute with."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
            for param, values in optimizer.state.items():
                for name in OF_A_SHAPE & values.keys():
                    if values[name] is not None and values[name].shape != param.shape:
                        shapes = f"{tuple(values[name].shape)}, its parameter {tuple(param.shape)}"
                        raise ValueError(f"{name} of an optimizer has shape {shapes}")


def make_optimizers(
    model: nn.Module,
    make: Callable[[Iterable[nn.Parameter]], Optimizer],
    attach: Callable[[], Quantizer | None],
    options: dict[str, Any],
) -> tuple[Optimizers, Quantizer | None]:
    """Make the weights' optimizer, attach the quantizer, then put its learned tensors into an optimizer.

    make: parameters -> optimizer.
    attach: attaches the quantizer and returns it, or None. It comes after the optimizer, which must not hold the
    tensors that the quantizer adds.
    options: arguments of its `setup_optimizer`.
    SGD does not suit bits and other tensors with rates of their own, whose gradients are of another scale: beside
    it they get an Adam.
    """
    weights = make(model.parameters())
    quantizer = attach()
    if quantizer is None:
        return Optimizers([weights]), None
    optimizers = [weights]
    groups = quantizer.optimizer_groups(**options)
    own_rate = [param for group in groups if "lr" in group for param in group["params"]]
    if isinstance(weights, SGD) and own_rate:
        # with a width per weight, its step is most of the cost of bits
        bits: Optimizer = Adam([{"params": []}], fused=True)
        optimizers.append(bits)
    quantizer.setup_optimizer(optimizers[-1], **options)
    if len(optimizers) == 2:
        _drop_empty(optimizers[1])
    return Optimizers(optimizers, quantizer.learned().values(), own_rate), quantizer


def _drop_empty(optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
