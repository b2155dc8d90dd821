"""Which parameters of a model are quantized, which stay float, and which are one tensor under several names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..common.units import MB
from .memory import memory_of

ENTRIES_PER_MB = MB / 4  # float32


class ModelChanged(RuntimeError):
    """A model whose parameters are not those that a quantizer was attached to."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name!r} is not the parameter that the quantizer was attached to; after a change of the model's "
            "layers, detach() the quantizer and attach another"
        )


@dataclass(frozen=True)
class Use:
    """One place where a module holds a parameter."""

    name: str  # full dotted name, as in state_dict
    module: nn.Module
    attr: str
    path: str  # of the module

    @property
    def param(self) -> nn.Parameter:
        """The parameter there now, since `.to()` may replace it. Raises: ModelChanged where there is none."""
        param = self.module._parameters.get(self.attr)
        if param is None:
            raise ModelChanged(self.name)
        return param


@dataclass(frozen=True)
class Tensors:
    """One parameter and all places that share it; named after the first."""

    uses: tuple[Use, ...]

    @property
    def name(self) -> str:
        return self.uses[0].name

    @property
    def param(self) -> nn.Parameter:
        return self.uses[0].param

    @property
    def entries(self) -> int:
        return self.param.numel()

    @property
    def channels(self) -> int:
        """Entries of the first dimension; 1 where there is no other, since a number for each weight is no scale."""
        return self.param.shape[0] if self.param.dim() > 1 else 1


@dataclass(frozen=True)
class Selection:
    """The parameters of a model, sorted by what happens to them."""

    quantized: tuple[Tensors, ...]
    floats: tuple[Tensors, ...]
    tied: dict[str, str]  # {other name: the name that is stored}


def select(
    model: nn.Module, min_size: float, exclude: Iterable[str], detect_bound: bool, least_dims: int = 0
) -> Selection:
    """Sort the floating-point parameters of `model`, in the order of `named_parameters`.

    Quantized are those of more than `min_size` MB (as float32) and at least `least_dims` dimensions, of which no
    name matches a shell-style pattern of `exclude`, tried against the full dotted name and its last part. With
    `detect_bound`, a tensor under several names is one item, and so are parameters in one memory; without, each use
    is an item of its own (a place that two paths reach is a single use).
    Raises: ValueError for an argument out of its range, or naming a parameter that has no shape yet.
    """
    if isinstance(exclude, str):
        raise ValueError(f"exclude must be a list of patterns, not the string {exclude!r}")
    if not (min_size >= 0 and math.isfinite(min_size)):
        raise ValueError(f"min_size must be a finite number of MB >= 0, not {min_size!r}")
    places: dict[object, list[Use]] = {}
    for use in _uses(model):
        key = (memory_of(use.param) or id(use.param)) if detect_bound else (id(use.module), use.attr)
        places.setdefault(key, []).append(use)
    items = [Tensors(tuple(uses)) for uses in places.values()]
    patterns = tuple(exclude)
    chosen = [
        item.entries > min_size * ENTRIES_PER_MB
        and item.param.dim() >= least_dims
        and item.param.layout is torch.strided
        and not any(_matches(use.name, patterns) for use in item.uses)
        for item in items
    ]
    return Selection(
        quantized=tuple(item for item, keep in zip(items, chosen, strict=True) if keep),
        floats=tuple(item for item, keep in zip(items, chosen, strict=True) if not keep),
        tied={use.name: item.name for item in items for use in item.uses[1:]},
    )


def check_unchanged(model: nn.Module, selection: Selection) -> None:
    """Raises: ModelChanged naming a parameter that is gone, or that stands in another module than before."""
    for item in (*selection.quantized, *selection.floats):
        for use in item.uses:
            module = _module_at(model, use.path)
            if module is not use.module or use.module._parameters.get(use.attr) is None:
                raise ModelChanged(use.name)


def _module_at(model: nn.Module, path: str) -> nn.Module | None:
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = module._modules.get(name) if module is not None else None
    return module


def _uses(model: nn.Module) -> Iterator[Use]:
    """The places of floating-point parameters, with their names in the state_dict, which a wrapper may shorten."""
    state = model.state_dict(keep_vars=True)
    for path, module in model.named_modules(remove_duplicate=False):
        for attr, param in module._parameters.items():
            if param is None or not param.is_floating_point():
                continue
            name = f"{path}.{attr}" if path else attr
            if is_lazy(param):
                raise ValueError(f"{name!r} has no shape yet: run a forward of the model first")
            if name not in state:
                name = next((key for key, value in state.items() if value is param), name)
            state.pop(name, None)
            yield Use(name, module, attr, path)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    last = name.rpartition(".")[2]
    return any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in patterns)
