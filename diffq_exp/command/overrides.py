"""The words of a command line, by Hydra's grammar, and what a sweep makes of them.

A sweep is a list of grids, as scikit-learn's ParameterGrid takes them: each gives values to some keys, and its jobs
are the product of them. What is typed holds in every grid, in place of what the grid says of the same key. Only the
experiment is the grid's where it names one: what was typed is then the experiment that the grids come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException

from .schema import shown


@cache
def parse(word: str) -> Override:
    """One word. Raises: ValueError when it is none."""
    try:
        return OverridesParser.create().parse_override(word)
    except (HydraException, ValueError):
        raise ValueError(f"{word!r}: not understood; a key is set by key=value") from None


def parse_all(words: Sequence[str], faults: list[str]) -> Iterator[Override]:
    """Those of the words that are understood; of the others a fault each."""
    for word in words:
        try:
            yield parse(word)
        except ValueError as fault:
            faults.append(str(fault))


def grid_words(grid: Mapping[str, Any]) -> list[str]:
    """The words that say the same as a grid of a YAML: {"bits": [2, 3]} -> ["bits=2,3"].

    A text stands as it would be typed: {"seed": "range(3)"} -> ["seed=range(3)"]; in a list it is a value.
    """
    return [f"{key}={_values(value)}" for key, value in grid.items()]


def _values(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_element, value))
    return value if isinstance(value, str) else _element(value)


def _element(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_element, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_element(item)}" for key, item in value.items()) + "}"
    return _text(value) if isinstance(value, str) else shown(value)


def _text(value: str) -> str:
    """In quotes where it would be read as something else."""
    try:
        bare = value != "" and "\\" not in value and parse(f"key={value}").value() == value
    except ValueError:
        bare = False
    return value if bare else QuotedString(value, Quote.single).with_quotes()


def merged(typed: Sequence[Override], grid: Sequence[Override]) -> list[Override]:
    """The overrides of one grid: its own, and what was typed, which replaces them key by key."""
    named = {one.key_or_group for one in grid}
    ours = [one for one in typed if not (one.key_or_group == "experiment" and "experiment" in named)]
    return list({(one.key_or_group, one.package): one for one in (*grid, *ours)}.values())


def jobs_of(overrides: Sequence[Override], choices: Callable[[str], list[str]]) -> list[tuple[str, ...]]:
    """The words of each job of a grid; the last key changes fastest. choices: a group's YAMLs, for glob(...)."""
    return list(product(*(words for one in overrides if (words := values(one, choices)))))


def values(one: Override, choices: Callable[[str], list[str]]) -> list[str]:
    """A word for each value that an override gives to its key; none where they cannot be counted."""
    if not one.is_sweep_override():
        return [one.input_line or ""]
    value = one.value()
    if isinstance(value, Glob):
        names: Sequence[str] = value.filter(choices(one.key_or_group))
    elif one.is_discrete_sweep():
        names = list(one.sweep_string_iterator())
    else:
        names = []
    return [f"{one.get_key_element()}={name}" for name in names]
