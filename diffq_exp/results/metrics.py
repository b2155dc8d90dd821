"""metrics.jsonl: a row of JSON for each epoch of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.files import finite, read_regular, replacing


def read_rows(path: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, up to the first that is none: a kill may cut the last line short.

    No rows where it is no regular file, or has more than `most` bytes. Raises: OSError.
    """
    try:
        return rows_of_text(read_regular(path, most).decode(errors="replace"))
    except (FileNotFoundError, ValueError):
        return []


def rows_of_text(text: str) -> list[dict[str, Any]]:
    """The rows of the text of a metrics.jsonl, up to the first line that is none."""
    rows: list[dict[str, Any]] = []
    for line in text.splitlines():
        row = _row(line)
        if row is None:
            break
        rows.append(row)
    return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def text_of_rows(rows: Iterable[Mapping[str, object]]) -> str:
    """What a metrics.jsonl with these rows has."""
    return "".join(_line(row) for row in rows)


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Make a metrics.jsonl hold exactly these rows."""
    with replacing(path) as file:
        file.write(text_of_rows(rows).encode())


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row; it is on the disk when this returns."""
    with open(path, "ab") as file:
        file.write(_line(row).encode())
        file.flush()
        os.fsync(file.fileno())


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(finite(row)) + "\n"
