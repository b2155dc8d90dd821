"""metrics.jsonl: a row of JSON for each epoch of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.files import finite, replacing


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    return rows_of_text(path.read_bytes().decode(errors="replace")) if path.exists() else []


def rows_of_text(text: str) -> list[dict[str, Any]]:
    """The rows of the text of a metrics.jsonl, up to the first line that is none."""
    rows = []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


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
