"""Quantizers that learn something per tensor: parameters of their own beside the weights, and their optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..stored.selection import Tensors
from .quantizer import Quantizer


class LearnedQuantizer(Quantizer):
    """Registers a parameter `name + suffix` beside each quantized weight, and sees that it gets trained."""

    def __init__(self, model: nn.Module, suffix: str, **options: Any) -> None:
        if not suffix or "." in suffix:
            raise ValueError(f"suffix must be a non-empty string without a dot, not {suffix!r}")
        self.suffix = suffix
        self._ready = False
        super().__init__(model, **options)

    def _prepare(self) -> None:
        for item in self.selection.quantized:
            if hasattr(item.uses[0].module, self._attr(item)):
                raise ValueError(
                    f"suffix {self.suffix!r} is taken: the model has a {item.name + self.suffix!r} already"
                )
        for item in self.selection.quantized:
            start = self._start(item).to(item.param.device)
            item.uses[0].module.register_parameter(self._attr(item), nn.Parameter(start))

    @abstractmethod
    def _start(self, item: Tensors) -> Tensor:
        """The first value of what is learned for one tensor."""

    def _attr(self, item: Tensors) -> str:
        return item.uses[0].attr + self.suffix

    def _learned(self, item: Tensors) -> nn.Parameter:
        param = item.uses[0].module._parameters[self._attr(item)]
        assert param is not None
        return param

    def learned(self) -> dict[str, nn.Parameter]:
        return {item.name + self.suffix: self._learned(item) for item in self.selection.quantized}

    def _check_ready(self) -> None:
        if self.selection.quantized and not self._ready:
            raise RuntimeError(
                f"{type(self).__name__} trains parameters of its own: call setup_optimizer(optimizer), "
                "or no_optimizer(), before the first training forward"
            )

    def _add_group(self, optimizer: Optimizer, **options: Any) -> None:
        params = list(self.learned().values())
        if _held(optimizer, params):
            raise RuntimeError(
                f"the optimizer holds parameters of the {type(self).__name__} already; make it before the "
                "quantizer, or from the parameters you want, and set it up once"
            )
        if params:
            optimizer.add_param_group({"params": params, **options})
        self._ready = True

    def clear_optimizer(self, optimizer: Optimizer) -> None:
        """Take the quantizer's parameters, and their state, out of an optimizer."""
        params = _held(optimizer, self.learned().values())
        ids = {id(param) for param in params}
        for group in optimizer.param_groups:
            group["params"] = [param for param in group["params"] if id(param) not in ids]
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        for param in params:
            optimizer.state.pop(param, None)

    def no_optimizer(self) -> None:
        """Say that the quantizer's parameters are not to be trained."""
        self._ready = True

    def detach(self) -> None:
        super().detach()
        for item in self.selection.quantized:
            item.uses[0].module._parameters.pop(self._attr(item), None)


def _held(optimizer: Optimizer, params: Iterable[Tensor]) -> list[Tensor]:
    """Those of `params` that are in the optimizer."""
    inside = {id(param) for group in optimizer.param_groups for param in group["params"]}
    return [param for param in params if id(param) in inside]
