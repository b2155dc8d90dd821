"""Computed tensors in the place of parameters, for the length of a forward.

A module finds `self.weight` in its instance `__dict__` before its `__getattr__` looks among the parameters. So a
tensor put there shadows the parameter without touching it: `state_dict()`, optimizers, `.to()` and checkpoints
see the float weights at every moment, even when an interrupt leaves a shadow behind, and taking a shadow out
is a `dict.pop` that cannot fail. torch.compile traces both, into one graph.

Recurrent modules alone keep a list of their weights beside the attributes; it is renewed with them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .select import Tensors


def put(item: Tensors, tensor: Tensor) -> None:
    """Let every use of a parameter see `tensor`."""
    for use in item.uses:
        object.__setattr__(use.module, use.attr, tensor)
        _renew_list(use.module)


def take_out(items: Iterable[Tensors]) -> None:
    """Let every use see the parameter again; nothing happens where no tensor was put."""
    for item in items:
        for use in item.uses:
            if use.attr not in use.module.__dict__:
                continue
            if torch.compiler.is_compiling():  # not every release of torch can trace the removal
                object.__setattr__(use.module, use.attr, use.param)
            else:
                del use.module.__dict__[use.attr]
            _renew_list(use.module)


def _renew_list(module: nn.Module) -> None:
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]
