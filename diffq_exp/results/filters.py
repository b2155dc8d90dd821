"""The conditions of --filter: key=value, key=either,or, key!=value, and key<3, key<=3, key>3, key>=3.

A key is one that a run was given (bits, quantizer, quantizer.extra_bits), or a number that it came to
(size_mb.file, test.accuracy, val.loss). true and false are not 1 and 0.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..common.names import natural, unknown
from .discovery import MISSING, Run, read_value
from .points import shown
from .summary import LONGEST_KEY, check_key

FORMS = "key=value, and in quotes 'key<3', 'key>=3' or 'key!=value'"
RESULTS = ("test", "val", "size_mb")
_CONDITION = re.compile(r"([^=<>!]+)(<=|>=|!=|=|<|>)(.+)", re.DOTALL)
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def filtered(runs: Sequence[Run], condition: str) -> list[Run]:
    """The runs for which a condition holds, and missing jobs for which it may. Raises: ValueError."""
    parts = _CONDITION.fullmatch(condition)
    if parts is None:
        raise ValueError(f"--filter {condition}: {FORMS} are allowed")
    key, sign, text = parts.groups()
    value = _reader(condition, key, runs)
    holds = _test(condition, sign, text)
    if not any(holds(value(run)) for run in runs):
        there = sorted({shown(own) for run in runs if (own := value(run)) is not None}, key=natural)
        raise ValueError(f"--filter {condition}: no run has it; of {key} there are {', '.join(there) or 'none'}")
    return [run for run in runs if holds(own := value(run)) or (run.status == MISSING and own is None)]


def _reader(condition: str, key: str, runs: Sequence[Run]) -> Callable[[Run], object]:
    """What gives the value of a key. Raises: ValueError with the nearest one where no run has the key."""
    group, _, name = key.partition(".")
    if group not in RESULTS:
        check_key(key, runs)
        return lambda run: run.value(key)
    names = {name for run in runs for name in getattr(run.record, group) if len(name) <= LONGEST_KEY}
    known = {f"{group}.{name}" for name in names if any(run.record.number(group, name) is not None for run in runs)}
    if key not in known:
        raise ValueError(f"--filter {condition}: {unknown('run has a result', key, sorted(known))}")
    return lambda run: run.record.number(group, name)


def _test(condition: str, sign: str, text: str) -> Callable[[Any], bool]:
    if sign in ("=", "!="):
        wanted = [text, *text.split(",")]
        return lambda value: any(_same(value, one) for one in wanted) == (sign == "=")
    limit, compare = read_value(text), _ORDER[sign]
    if not _is_number(limit):
        raise ValueError(f"--filter {condition}: a number is expected after {sign}")
    return lambda value: _is_number(value) and compare(value, limit)


def _same(value: object, text: str) -> bool:
    """Whether a text means a value: as it is read, or as it is shown, [] and null say."""
    wanted = read_value(text)
    read = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
    return read or shown(value) == ("null" if text.lower() == "null" else text)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
