"""Checks of the arguments of quantizers: an error gives the name, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
    """`value` when it is a number in [low, high]. Raises: ValueError that names it and says what is allowed."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and low <= value <= high and (not whole or value == int(value))):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {low} to {high}, not {value!r}")
    return float(value)


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value` when it is one of `allowed`. Raises: ValueError that names it and says what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def check_suffix(suffix: Any) -> None:
    """Raises: ValueError for a suffix that cannot end the name of a parameter."""
    if not isinstance(suffix, str) or not suffix or "." in suffix:
        raise ValueError(f"suffix must be a non-empty string without a dot, not {suffix!r}")
