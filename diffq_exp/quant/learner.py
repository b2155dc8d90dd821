"""What a quantizer is to an optimizer: the tensors that it learns, and the model's own parameters apart."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..stored.network import StoresModel
from ..stored.selection import Tensors
from .attachment import Attachment
from .learned import LearnedTensors, Rates
from .misuse import UNSEEN


class Learner(StoresModel):
    """Learned tensors of a model beside its own parameters. A subclass sets these three attributes."""

    model: nn.Module
    attachment: Attachment
    _learned: LearnedTensors

    _ready = False  # whether somebody has said how the learned tensors are trained
    _warned = False

    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that this quantizer added to the model, by their name in it."""
        return self._learned.named()

    def learned_tensor(self, item: Tensors, suffix: str) -> nn.Parameter:
        """One of them, as it is now."""
        return self._learned.param(item, suffix)

    def base_parameters(self, whole: nn.Module | None = None) -> list[nn.Parameter]:
        """The parameters that the model has of itself, without the learned tensors, for an optimizer of weights.

        So the quantizer can be attached where the model is made, and be part of all checkpoints of it.
        whole: take those of this module, of which the quantized model is a part.
        """
        learned = {id(param) for param in self.learned().values()}
        return [
            param for param in (self.model if whole is None else whole).parameters() if id(param) not in learned
        ]

    def optimizer_groups(self, lr: Rates = None, **overrides: object) -> list[dict[str, Any]]:
        """The groups that `setup_optimizer` adds: a list of {"params": [...], option: value}."""
        return self._learned.groups(lr, overrides)

    def setup_optimizer(self, optimizer: Optimizer, lr: Rates = None, **overrides: object) -> None:
        """Add the learned tensors to an existing optimizer, a group for each kind.

        lr: a rate for all of them, or {suffix: rate}; else the method's own. overrides: other options of the
        groups. Beside SGD, the learned tensors usually have a second optimizer: `Adam([{"params": []}])`.
        Raises: RuntimeError when the optimizer holds some of them already.
        """
        self._learned.join(optimizer, self.optimizer_groups(lr, **overrides), type(self).__name__)
        optimizer.register_step_post_hook(self._check_step)
        self._ready = True

    def _check_step(self, optimizer: Optimizer, *_step: object) -> None:
        if not (self.attachment.trained or self._warned) and self._learned.inside(optimizer):
            self._warned = True
            warnings.warn(UNSEEN.format(type(self).__name__), stacklevel=3)

    def clear_optimizer(self, optimizer: Optimizer) -> None:
        """Take the learned tensors, and their state, out of an optimizer."""
        self._learned.clear(optimizer)

    def no_optimizer(self) -> None:
        """Say that the learned tensors are not to be trained."""
        self._ready = True

    def check_ready(self) -> None:
        """Raises: RuntimeError when a training forward must not run yet."""
        if len(self._learned) and not self._ready:
            raise RuntimeError(
                f"{type(self).__name__} trains parameters of its own: call setup_optimizer(optimizer), "
                "or no_optimizer(), before the first training forward"
            )
