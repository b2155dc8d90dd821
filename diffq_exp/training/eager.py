"""torch.optim without the import of torch's compiler, for runs that compile nothing.

To keep torch.compile out of an optimizer, torch wraps its methods, and the wrappers import torch._dynamo when they
are first called: 0.9 s, and 0.4 s more when the process ends, of which compiled code alone would see an effect.
There is no switch for it. So while a method of torch.optim runs, and no longer, a stand-in takes its place: it has
the two functions that the wrappers call, and gives way to the module itself where something else is asked of it.

Nothing happens where torch._dynamo is there already, as with compile=true once torch.compile was called; nor to
optimizers that are not torch's own, which may compile. A torch whose wrappers ask for more imports the module as
ever. Only an import of one of its submodules (a first torch.compile in somebody's step hook) would not find it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _StandIn(ModuleType):
    """For a torch._dynamo that has nothing to keep out of."""

    def __init__(self) -> None:
        super().__init__(COMPILER)
        self.wrapped: list[Callable[..., Any]] = []

    def disable(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        self.wrapped.append(function)
        return function

    def graph_break(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks of a module
            raise AttributeError(name)
        self.give_way()
        return getattr(import_module(COMPILER), name)

    def give_way(self) -> None:
        """Leave no trace: neither the module, nor what the wrappers remember of disable()."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        if vars(torch).get("_dynamo") is self:
            del vars(torch)["_dynamo"]
        for function in self.wrapped:
            vars(function).pop("__dynamo_disable", None)


@contextmanager
def eager(optimizer: Any) -> Iterator[None]:
    """Inside, methods of this optimizer, class of optimizers, or partial of one, import no compiler."""
    while isinstance(optimizer, partial):
        optimizer = optimizer.func
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    if COMPILER in sys.modules or not kind.__module__.startswith("torch.optim."):
        yield
        return
    stand_in = _StandIn()
    try:
        sys.modules[COMPILER] = vars(torch)["_dynamo"] = stand_in
        yield
    finally:
        stand_in.give_way()
