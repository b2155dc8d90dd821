"""Text of unknown origin (records, file names, errors) for people to read: it says what it holds, and does nothing.

A terminal obeys escape codes, a viewer turns text around at some signs, no file can hold half of a UTF-16 pair.
"""

from __future__ import annotations

import re

_BLANK = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str, most: int | None = None) -> str:
    """One line: blanks for ends of lines, other control characters by their number, as \\x1b.

    most: a longer text is shortened in its middle to this many characters.
    """
    if most is not None and len(text) > most:
        text = f"{text[: (most + 1) // 2 - 1]}\u2026{text[len(text) - most // 2 :]}"
    return _UNSEEN.sub(_escaped, _BLANK.sub(" ", text))


def one_line(error: BaseException) -> str:
    """The message of an error, for the line that a command ends with."""
    return printable(" ".join(str(error).split()), 2000)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
