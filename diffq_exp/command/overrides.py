"""The overrides of a command line, by Hydra's grammar, and how a sweep turns them into jobs.

A sweep is a list of grids, as scikit-learn's ParameterGrid takes them: each gives values to some keys, and its jobs
are the product of these values. A typed override holds in every grid and replaces the grid's own values of its key.
`experiment` is the exception: where a grid names an experiment, the typed one only says where the grids come from.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from math import isnan, prod

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString, RangeSweep
from hydra.errors import HydraException

from .ranges import shown

MOST_JOBS = 10_000  # of a sweep: the check composes each of them

Choices = Callable[[str], list[str]]  # the names of a group's YAML files


@cache
def parse(text: str) -> Override:
    """Raises: ValueError when `text` is no override, or a range whose values cannot be listed."""
    try:
        override = OverridesParser.create().parse_override(text)
    except (HydraException, ValueError):
        raise ValueError(f"{text!r}: not understood; {_how_to_type(text)}") from None
    if isinstance(value := override.value(), RangeSweep):
        _check_range(text, value)
    return override


def _check_range(text: str, values: RangeSweep) -> None:
    start, stop, step = values.start or 0, values.stop or 0, values.step
    if not step or isnan(start + stop + step):
        raise ValueError(f"{text}: range(start,stop,step) is allowed, with a step that is not 0")
    _check_count(text, (stop - start) / step)


def _check_count(text: str, runs: float) -> None:
    if runs > MOST_JOBS:
        raise ValueError(f"{text}: {runs:,.0f} runs; a sweep of at most {MOST_JOBS:,} is allowed")


def _how_to_type(text: str) -> str:
    """How a word that the grammar refuses is typed."""
    key, equals, value = text.partition("=")
    if not equals or re.fullmatch(r"[~+]*[\w.@/:-]+", key, re.ASCII) is None or re.match(r"\w+\(", value):
        return "a key is set by key=value, without blanks"
    if value.count("${") > value.count("}"):
        return "${ needs its }"
    if value.endswith(","):
        return f"values are separated by commas without blanks: {key}=0,1"
    if value[:1] in ("[", "{"):
        return (
            "a text inside of a list or a mapping stands in quotes where it has other characters than A-Z a-z 0-9"
        )
    word = f"{key}={quoted(value)}"
    return "such a value stands in quotes, inside those of the shell: " + (
        shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'
    )


def parse_all(texts: Sequence[str], errors: list[str]) -> Iterator[Override]:
    """The texts that are overrides, parsed; adds an error for each of the others."""
    for text in texts:
        try:
            yield parse(text)
        except ValueError as error:
            errors.append(str(error))


def text_of(override: Override) -> str:
    """The override as it was typed."""
    return override.input_line or ""


def grid_overrides(grid: Mapping[str, object]) -> list[str]:
    """A grid of a YAML file as overrides: {"bits": [2, 3]} -> ["bits=2,3"].

    A plain text stands as it would be typed: {"seed": "range(3)"} -> ["seed=range(3)"]. In a list it is one value.
    """
    return [f"{key}={_values(value)}" for key, value in grid.items()]


def _values(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_element, value))
    return value if isinstance(value, str) else _element(value)


def _element(value: object) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_element, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_element(item)}" for key, item in value.items()) + "}"
    return _quoted_if_needed(value) if isinstance(value, str) else shown(value)


def quoted(value: str) -> str:
    """A text in quotes, as the grammar reads it."""
    return QuotedString(value, Quote.single).with_quotes()


def _quoted_if_needed(value: str) -> str:
    """A text, in quotes where it would be read as something else without them."""
    try:
        bare = value != "" and "\\" not in value and parse(f"key={value}").value() == value
    except ValueError:
        bare = False
    return value if bare else quoted(value)


def merged(typed: Sequence[Override], grid: Sequence[Override]) -> list[Override]:
    """The overrides of one grid and the typed ones, which replace those of the same key."""
    in_grid = {override.key_or_group for override in grid}
    kept = [o for o in typed if not (o.key_or_group == "experiment" and "experiment" in in_grid)]
    return list({(override.key_or_group, override.package): override for override in (*grid, *kept)}.values())


def overrides_of_jobs(overrides: Sequence[Override], choices: Choices) -> list[tuple[str, ...]]:
    """The overrides of each job: the product of all values; the last key changes fastest.

    Raises: ValueError when they are more than MOST_JOBS.
    """
    singles = [single for override in overrides if (single := single_overrides(override, choices))]
    _check_count("all combinations", prod(map(len, singles)))
    return list(product(*singles))


def first_job(overrides: Sequence[Override], choices: Choices) -> tuple[str, ...]:
    """The overrides of the first job."""
    return tuple(single[0] for override in overrides if (single := single_overrides(override, choices)))


def single_overrides(override: Override, choices: Choices) -> list[str]:
    """An override for each value of `override`; [] where the values cannot be listed, as those of an interval."""
    if not override.is_sweep_override():
        return [text_of(override)]
    value = override.value()
    if isinstance(value, Glob):
        values: Sequence[str] = value.filter(choices(override.key_or_group))
    elif override.is_discrete_sweep():
        values = list(override.sweep_string_iterator())
    else:
        values = []
    return [f"{override.get_key_element()}={single}" for single in values]
