"""Names in messages: those most like a mistyped one, the first of many, and the order of numbers in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def nearest(name: str, known: Iterable[str], count: int = 1, likeness: float = 0.0) -> list[str]:
    """The known names that are most like `name`, best first: at most `count`, of at least this likeness (0..1)."""
    return get_close_matches(name, list(known), n=count, cutoff=likeness)


def hint(name: str, known: Iterable[str]) -> str:
    """The end of an error message about a name that a library does not have: the names most like it, if any are."""
    close = nearest(name, known, count=3, likeness=0.5)
    return f"; nearest: {', '.join(close)}" if close else "; its documentation lists them"


def shown_path(path: object) -> str:
    r"""A path for a message; bytes of a file name that are no UTF-8 are written out, as \xff."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """The message about a name that does not exist: "no sweep 'a'; did you mean 'b'?"."""
    if near := nearest(name, known, likeness=0.6):
        return f"no {kind} {name!r}; did you mean {near[0]!r}?"
    return f"no {kind} {name!r}; there are: {', '.join(known) or 'none'}"


def natural(text: str) -> list[tuple[bool, float, str]]:
    """A key to sort by in which numbers in a text count as numbers: 0.3, 1, 8, 16, 1e3."""
    return [
        (not at % 2, float(part) if at % 2 else 0.0, part if not at % 2 else "")
        for at, part in enumerate(_NUMBER.split(text))
    ]


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names in quotes, and how many there are besides."""
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
