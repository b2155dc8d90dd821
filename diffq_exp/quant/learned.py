"""Tensors that a quantizer learns: parameters beside the weights, and their groups in an optimizer.

Each is registered in the module that has the weight, under the weight's name + a suffix, so that `state_dict`,
`.to(device)`, distributed training and optimizers see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ..stored.grids import Stored
from ..stored.selection import Tensors
from .arguments import check_suffix

Rates = float | Mapping[str, float] | None  # a learning rate for all, or by suffix; None: those of the quantizer


@dataclass(frozen=True)
class Learned:
    """A tensor to learn for one weight.

    start: its first value, of any shape. options: of its optimizer group, {"lr": 1e-3, "weight_decay": 0.0} say;
    an option that is left out is the optimizer's own.
    """

    start: Tensor
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Place:
    """Where a learned tensor is registered."""

    weight: Tensors
    suffix: str
    options: Mapping[str, object]

    @property
    def name(self) -> str:
        return self.weight.name + self.suffix

    @property
    def module(self) -> nn.Module:
        return self.weight.uses[0].module

    @property
    def attr(self) -> str:
        return self.weight.uses[0].attr + self.suffix

    @property
    def param(self) -> nn.Parameter:
        """Looked up each time, since `.to()` may replace it."""
        return _param(self.module, self.attr)


def _param(module: nn.Module, attr: str) -> nn.Parameter:
    param = module._parameters[attr]
    assert param is not None
    return param


def check_steps(weight: Tensors, stored: Stored, steps: Tensor) -> None:
    """Raises: ValueError when a stored weight has other steps than the (C,) that are learned."""
    if stored.grid != "step" or len(stored.scales) != len(steps):
        own = f"a grid {stored.grid!r} with {len(stored.scales)} numbers"
        raise ValueError(f"{weight.name!r} is stored on {own}, the quantizer has {len(steps)} learned steps")


class LearnedTensors:
    """All learned tensors of one quantizer."""

    def __init__(self) -> None:
        self._places: list[_Place] = []

    def register(self, tensors: Iterable[tuple[Tensors, Mapping[str, Learned]]]) -> None:
        """Add them to the model. Raises: ValueError for a suffix that is taken; the model is then unchanged."""
        starts = []
        for weight, by_suffix in tensors:
            for suffix, learned in by_suffix.items():
                check_suffix(suffix)
                self._places.append(place := _Place(weight, suffix, learned.options))
                starts.append(learned.start)
                if hasattr(place.module, place.attr):
                    raise ValueError(f"suffix {suffix!r} is taken: the model has a {place.name!r} already")
        for place, start in zip(self._places, starts, strict=True):
            device = place.weight.param.device
            place.module.register_parameter(place.attr, nn.Parameter(start.detach().to(device)))

    def remove(self) -> None:
        """Take them out of the model."""
        for place in self._places:
            place.module._parameters.pop(place.attr, None)
        self._places.clear()

    def __len__(self) -> int:
        return len(self._places)

    def param(self, weight: Tensors, suffix: str) -> nn.Parameter:
        """One of them."""
        return _param(weight.uses[0].module, weight.uses[0].attr + suffix)

    def named(self) -> dict[str, nn.Parameter]:
        """By their names in the model."""
        return {place.name: place.param for place in self._places}

    def groups(self, lr: Rates, overrides: Mapping[str, object]) -> list[dict[str, Any]]:
        """Groups for an optimizer: a group for each suffix, or more where the options of its weights differ.

        Raises: ValueError for a rate of a suffix that does not exist.
        """
        suffixes = {place.suffix for place in self._places}
        if isinstance(lr, Mapping) and suffixes and (unknown := set(lr) - suffixes):
            raise ValueError(
                f"lr names {sorted(unknown)[0]!r}; the learned tensors are {', '.join(sorted(suffixes))}"
            )
        groups: dict[tuple[str, str], dict[str, Any]] = {}
        for place in self._places:
            rate = lr.get(place.suffix) if isinstance(lr, Mapping) else lr
            options = {**place.options, **({} if rate is None else {"lr": rate}), **overrides}
            group = groups.setdefault((place.suffix, repr(sorted(options.items()))), {"params": [], **options})
            group["params"].append(place.param)
        return list(groups.values())

    def inside(self, optimizer: Optimizer) -> list[nn.Parameter]:
        """Those that an optimizer holds."""
        held = {id(param) for group in optimizer.param_groups for param in group["params"]}
        return [place.param for place in self._places if id(place.param) in held]

    def join(self, optimizer: Optimizer, groups: Iterable[dict[str, Any]], owner: str) -> None:
        """Add them to an optimizer in these groups. Raises: RuntimeError when it holds some of them already."""
        if self.inside(optimizer):
            raise RuntimeError(
                f"the optimizer holds parameters of the {owner} already; make it of quantizer.base_parameters(), "
                "and set it up once"
            )
        for group in groups:
            optimizer.add_param_group(group)

    def clear(self, optimizer: Optimizer) -> None:
        """Take them, and their state, out of an optimizer."""
        params = self.inside(optimizer)
        ids = {id(param) for param in params}
        for group in optimizer.param_groups:
            group["params"] = [param for param in group["params"] if id(param) not in ids]
        optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        for param in params:
            optimizer.state.pop(param, None)
