"""What a network that a file describes may take while it is built: in proportion to the tensors in the file.

It is built for real, and not on the meta device first: constants that a module makes when it is imported, or keeps
for the next network, would stay there. A network that becomes too large is stopped before its memory is written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

FACTORIES = frozenset({
    torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.randperm,
    torch.arange, torch.linspace, torch.logspace, torch.eye, torch.empty_strided,
    Tensor.new_empty, Tensor.new_zeros, Tensor.new_ones, Tensor.new_full,
})  # fmt: skip
TIMES = 4  # each parameter of the file may be made so often: tied ones, and heads that are replaced
FREE_ENTRIES = 2**20  # of parameters
FREE_BYTES = 2**30  # of all tensors: masks and tables are not stored
FREE_CALLS = 2_000
SMALL = 4096  # bytes of tensors whose products are small too
FREE_LAYERS = 1_000  # that share their tensors


class TooLarge(Exception):
    """A network takes more than it is allowed. It is no ValueError, so that no library takes it for its own."""


class Allowance(TorchFunctionMode):
    """Inside its `with`, a network of many more parameters than these shapes have raises TooLarge."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        stored = TIMES * sum(torch.Size(shape).numel() for shape in shapes.values())
        self.entries, self.bytes = FREE_ENTRIES + stored, FREE_BYTES + 8 * stored
        self.calls = FREE_CALLS + 2 * TIMES * len(shapes)

    def __enter__(self) -> Allowance:
        self._hook = register_module_parameter_registration_hook(self._registered)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: object) -> None:
        self._hook.remove()
        super().__exit__(*exc)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("out") is None:
            self.calls -= 1
            self._count(func(*args, **{**kwargs, "device": "meta", "pin_memory": False}))
        elif not _in_place(func) and any(isinstance(arg, Tensor) and arg.nbytes >= SMALL for arg in args):
            self._count_result(func, args, kwargs)
        return func(*args, **kwargs)

    def _count_result(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> None:
        """Count what an operation on tensors will give, unless it is a view or one of them."""
        result = None
        with suppress(Exception), torch.no_grad():  # what is wrong with the operation will show
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.detach().to("meta"), (args, kwargs))
            result = func(*args, **kwargs)
        if isinstance(result, Tensor) and not result._is_view() and all(result is not arg for arg in args):
            self._count(result)

    def _count(self, made: Tensor) -> None:
        self.bytes -= made.nbytes
        self._check()

    def _registered(self, module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not is_lazy(param):
            self.entries -= param.numel()
            self._check()

    def _check(self) -> None:
        if min(self.entries, self.bytes, self.calls) < 0:
            raise TooLarge("the network is larger than what is stored")


def _in_place(func: Callable[..., object]) -> bool:
    """Whether a function of torch changes a tensor, as `normal_` does, or only looks at it."""
    name = func.__name__
    return name == "__get__" or (name.endswith("_") and not name.endswith("__"))


def check_depth(arguments: object, tensors: int) -> None:
    """Raises: ValueError for many more layers than tensors: some libraries list them before they build one."""
    if isinstance(arguments, list):
        arguments = dict(enumerate(arguments))
    for key, value in arguments.items() if isinstance(arguments, dict) else ():
        if "layer" in str(key) and isinstance(value, (int, float)) and value > FREE_LAYERS + tensors:
            raise ValueError(f"its config has {key}={value}, and {tensors} tensors are stored")
        check_depth(value, tensors)
