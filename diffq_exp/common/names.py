"""The names that are most like a mistyped name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
