"""Text of a record as text, and nothing else, in each format that a report writes."""

from __future__ import annotations

import re
from typing import Any

from ..common.printable import printable

LONGEST = 1000  # characters of a cell
_MARKDOWN = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_FORMULA = ("=", "+", "-", "@")  # as a spreadsheet reads the beginning of a cell
_TEX = {char: f"\\{char}" for char in "&%$#_{}"}
_TEX |= {char: f"{{{char}}}" for char in "[]*"}  # at the beginning of a row they would be options of the row before
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}


def md(text: str) -> str:
    """For Markdown: no HTML, link, emphasis, code or end of a cell."""
    text = "".join(_ENTITIES.get(char, char) for char in printable(text, LONGEST))
    return _MARKDOWN.sub(r"\\\g<0>", text)


def md_code(text: str) -> str:
    """A span of code, whatever the text holds."""
    text = printable(text, LONGEST)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def tex(text: str) -> str:
    """For LaTeX."""
    return "".join(_TEX.get(char, char) for char in printable(text, LONGEST))


def cell(value: object) -> Any:
    """For CSV: text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value, LONGEST)
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain(value: object) -> Any:
    """A nested value for JSON, all text in it printable; numbers to six digits, nan and infinity as None."""
    if isinstance(value, str):
        return printable(value, LONGEST)
    if isinstance(value, dict):
        return {printable(str(key), LONGEST): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < float("inf") else None
    return value
