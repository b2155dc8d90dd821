"""The arguments of quantizers: which were given, and checks with the name, the value and what is allowed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    """`value` when it is a number in [low, high]. Raises: ValueError that names it and says what is allowed."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and (not whole or value == int(value))):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")
    return float(value)


def check_choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """`value` when it is one of `allowed`. Raises: ValueError that names it and says what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def check_suffix(suffix: object) -> None:
    """Raises: ValueError for a suffix that cannot end the name of a parameter."""
    if not isinstance(suffix, str) or not suffix or "." in suffix:
        raise ValueError(f"suffix must be a non-empty string without a dot, not {suffix!r}")


def given_arguments(
    function: Callable[..., object], args: Sequence[object], keywords: Mapping[str, object]
) -> list[str]:
    """["name=value", ...] of the arguments of a method but its model that are not its defaults."""
    try:
        bound = inspect.signature(function).bind(None, *args, **keywords)
    except TypeError:
        return []  # the call itself will say what is wrong
    defaults = {name: _shown(one.default) for name, one in bound.signature.parameters.items()}
    given: dict[str, object] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        kind = bound.signature.parameters[name].kind
        if kind is not inspect.Parameter.VAR_POSITIONAL:
            given |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    given = {name: value for name, value in given.items() if not isinstance(value, nn.Module)}
    shown = {name: _shown(value) for name, value in given.items()}
    return [f"{name}={value}" for name, value in shown.items() if value != defaults.get(name)]


def _shown(value: object) -> str:
    """A plain value as Python writes it, 8.0 as 8 and a tuple as a list; an object by its type."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, (bool, int, str)) or value is None else f"{type(value).__name__}()"
