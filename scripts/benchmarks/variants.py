"""What is compared: the plain network, and ours and `diffq`'s quantizers on copies of it; one step of each.

The step is that of anyone's loop: SGD with momentum on the weights, Adam on the logits (fused where torch has it,
for ours and for diffq alike), loss + penalty * model_size().
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer

from .common import Clock, Context

PENALTY = 0.1
PLAIN, HERE, THEIRS = "plain", "here", "diffq"
FUSED = ("cpu", "cuda")  # devices for which all supported versions of torch have a fused Adam
LossOf = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Variant:
    """whose: plain, here, diffq, or one of ours by its name: lsq, rate, uniform (one width for all, not trained).

    progress: the share of training that is done, from which rate rounds instead of adding noise. contiguous:
    weights as they are made, where the others are channels_last: all that diffq takes.
    """

    whose: str
    noise: str = "gaussian"
    group_size: int = 8
    contiguous: bool = False
    progress: float = 0.0

    @property
    def name(self) -> str:
        learned = f" {self.noise} group {self.group_size}" if self.whose in (HERE, THEIRS) else ""
        later = f" at {self.progress:g}" if self.progress else ""
        return f"{self.whose}{learned}{later}{' contiguous' if self.contiguous else ''}"

    @property
    def reference(self) -> str:
        """The name of the plain network that this one is compared with."""
        return Variant(PLAIN, contiguous=self.contiguous).name


def attach(variant: Variant, model: nn.Module, min_size: float = 0.01) -> Any:
    """The variant's quantizer on the model, None for plain."""
    if variant.whose == PLAIN:
        return None
    if variant.whose == "uniform":
        return UniformQuantizer(model, bits=8, min_size=min_size)
    if variant.whose == "lsq":
        return LSQ(model, bits=8, min_size=min_size)
    if variant.whose == "rate":  # as anyone gets it: all tensors of two dimensions or more
        quantizer = RateQuantizer(model)
        quantizer.at(variant.progress)
        return quantizer
    options: dict[str, Any] = {"group_size": variant.group_size, "noise": variant.noise, "min_size": min_size}
    if variant.whose == HERE:
        return DiffQuantizer(model, **options)
    from diffq import DiffQuantizer as Theirs

    return Theirs(model, **options)


def wanted(context: Context, *variants: Variant) -> list[Variant]:
    """Those that can be measured: without diffq's where it is not there."""
    return [variant for variant in variants if context.diffq or variant.whose != THEIRS]


@dataclass(frozen=True)
class Taken:
    """Seconds of a step, and those in it of the logits' optimizer."""

    step: float
    logits: float


class Trainee:
    """A copy of a network with its quantizer and its optimizers.

    loss_of: model -> loss, the forward included. train_weights: else only the logits have an optimizer.
    """

    def __init__(
        self,
        variant: Variant,
        model: nn.Module,
        loss_of: LossOf,
        device: torch.device,
        autocast: bool = False,
        min_size: float = 0.01,
        train_weights: bool = True,
    ) -> None:
        self.model, self._loss_of, self._clock = copy.deepcopy(model).train(), loss_of, Clock(device)
        self._device, self._autocast = device, autocast
        self._weights = SGD(self.model.parameters(), lr=1e-4, momentum=0.9) if train_weights else None
        self.quantizer = attach(variant, self.model, min_size)
        self._logits: Adam | None = None
        if self.quantizer is not None:
            self._logits = Adam([{"params": []}], fused=device.type in FUSED)
            self.quantizer.setup_optimizer(self._logits, lr=1e-3)

    def casting(self) -> AbstractContextManager[Any]:
        """bfloat16 autocast where it was asked for."""
        return torch.autocast(self._device.type, torch.bfloat16) if self._autocast else nullcontext()

    def loss(self) -> Tensor:
        """A forward, with the penalty."""
        with self.casting():
            loss = self._loss_of(self.model)
        return loss if self.quantizer is None else loss + PENALTY * self.quantizer.model_size()

    def step(self) -> tuple[Any, Any]:
        """-> marks of the clock before and after the logits' optimizer."""
        self.model.zero_grad(set_to_none=True)  # the logits are parameters of the model as well
        self.loss().backward()  # type: ignore[no-untyped-call]
        if self._weights is not None:
            self._weights.step()
        before = self._clock.mark()
        if self._logits is not None:
            self._logits.step()
        return before, self._clock.mark()

    def timed(self, steps: int = 1) -> Taken:
        """The mean of some steps in a row: on a GPU several, so that the kernels are launched ahead."""
        self._clock.wait()
        start = self._clock.mark()
        marks = [self.step() for _ in range(steps)]
        total = self._clock.between(start, self._clock.mark())
        logits = sum(self._clock.between(*pair) for pair in marks)
        return Taken(total / steps, logits / steps)
