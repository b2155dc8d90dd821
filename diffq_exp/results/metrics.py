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
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Make a metrics.jsonl hold exactly these rows."""
    with replacing(path) as file:
        for row in rows:
            file.write(_line(row))


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row; it is on the disk when this returns."""
    with open(path, "ab") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Mapping[str, object]) -> bytes:
    return json.dumps(finite(row)).encode() + b"\n"
