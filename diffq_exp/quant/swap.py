"""Computed tensors in the place of parameters, in two ways.

For the length of a forward: a module finds `self.weight` in its instance `__dict__` before its `__getattr__` looks
among the parameters. So a tensor put there shadows the parameter without touching it: `state_dict()`, optimizers,
`.to()` and checkpoints see the float weights at every moment, even when an interrupt leaves a shadow behind, and
taking a shadow out cannot fail. Recurrent modules alone keep a list of their weights beside the attributes; it is
renewed with them. torch.compile traces it all into one graph; there, the parameter itself is left as the last
shadow, since not every release of torch can trace a removal.

Until further notice (`Held`): the data of the parameters themselves is exchanged, so that whoever looks at the
model sees the stored values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..stored.selection import Tensors


def unite(items: Iterable[Tensors]) -> None:
    """Make parameters that lie in one memory one parameter: `.to()`, optimizers and DDP would part them.

    Raises: ValueError naming two of which only one is trained; the model is then unchanged.
    """
    apart = [(item, use) for item in items for use in item.uses[1:] if use.param is not item.param]
    for item, use in apart:
        if use.param.requires_grad != item.param.requires_grad:
            raise ValueError(
                f"{item.name!r} and {use.name!r} lie in one memory, and only one of them requires a gradient: "
                "freeze both, or copy one of them"
            )
    for item, use in apart:
        use.module._parameters[use.attr] = item.param
        _renew_list(use.module)


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
            if torch.compiler.is_compiling():
                object.__setattr__(use.module, use.attr, use.param)
            else:
                del use.module.__dict__[use.attr]
            _renew_list(use.module)


def _renew_list(module: nn.Module) -> None:
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


class Held:
    """Stored values in parameters' `.data`, and the float tensors that were there. True while it holds some."""

    def __init__(self) -> None:
        self._floats: list[tuple[Tensors, Tensor, int | None]] = []  # item, float data, version of the parameter

    def __len__(self) -> int:
        return len(self._floats)

    def hold(self, items: Sequence[Tensors], values: Sequence[Tensor]) -> None:
        """Exchange the data of `items` for `values`."""
        for item, value in zip(items, values, strict=True):
            self._floats.append((item, item.param.data, item.param._version))
            item.param.data = value.clone()

    def release(self) -> None:
        """Put the float data back, on the parameter's device; one that was written to meanwhile is left alone."""
        while self._floats:
            item, data, version = self._floats.pop()
            if version is None or item.param._version == version:
                item.param.data = data.to(item.param.device)

    def weight(self, item: Tensors) -> Tensor:
        """The float weight, wherever it is."""
        for held, data, _ in self._floats:
            if held is item:
                return data
        return item.param

    def __getstate__(self) -> dict[str, object]:
        return {"_floats": [(item, data, None) for item, data, _ in self._floats]}  # a copy counts versions anew
