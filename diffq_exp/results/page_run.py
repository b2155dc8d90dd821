"""What the page of a report shows of a run: its numbers as text, its curves, the bits of its layers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..common.files import MOST_BYTES, read_json
from .discovery import Run
from .headline import PERCENT, Headline, is_number
from .metrics import read_rows
from .records import RunRecord
from .run_files import METRICS, SENSITIVITY
from .tables import megabytes


class Numbered:
    """Values that many runs share, each stored once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: object) -> int:
        name = json.dumps(value)
        if name not in self._numbers:
            self._numbers[name] = len(self.values)
            self.values.append(value)
        return self._numbers[name]


def run_data(run: Run, averaged: Sequence[str], layers: Numbered, hardware: Numbered) -> dict[str, Any]:
    record = run.record
    names = [f"{key} {value}" for key in averaged if (value := run.value(key)) is not None]
    bits = record.bits.get("layers")
    return {
        "label": ", ".join(names) or run.folder.name,
        "folder": run.folder.name,
        "command": run.command,
        **_texts(run),
        "seconds": record.seconds,
        "device": record.device,
        "commit": _commit(record),
        "hardware": hardware.number(_machine(record.hardware)),
        "layers": layers.number(list(bits)) if bits else None,
        "bits": list(bits.values()) if bits else None,
        "zero_rows": [record.bits.get("zero_rows", {}).get(name) for name in bits] if bits else None,
        "sensitivity": _sensitivity(run, bits),
        "curves": _curves(_rows(run), run.headline.name),
    }


def _texts(run: Run) -> dict[str, Any]:
    """A run's numbers as text: one place rounds, for page and tables."""
    record, headline = run.record, run.headline
    scores = {
        "test": ("test", headline.name),
        "float32": ("test", headline.float32_name),
        "val": ("val", headline.name),
    }
    target = record.target_mb
    return {
        **{key: score_and_unit(headline, record.number(*place)) for key, place in scores.items()},
        "mb": {kind: megabytes(run.size(kind)) for kind in ("file", "true", "float32")},
        "target": target and f"{megabytes(target)} MB, {'met' if record.target_met else 'NOT met'}",
    }


def _sensitivity(run: Run, bits: Mapping[str, Any] | None) -> list[float | None] | None:
    """Of each layer what a kB of it is worth, in loss; None where nobody has measured that."""
    try:
        measured = read_json(run.folder / SENSITIVITY)
    except (ValueError, OSError):
        return None
    values = [measured.get(name) for name in bits or {}]
    numbers = [value if is_number(value) else None for value in values]
    return numbers if any(number is not None for number in numbers) else None


def _commit(record: RunRecord) -> str | None:
    commit = record.git_commit
    return commit and f"{commit[:10]}{', with changes' if record.git_dirty else ''}"


def _machine(hardware: Mapping[str, Any]) -> str:
    threads = hardware.get("threads")
    count = f"{threads} thread{'' if threads == 1 else 's'}" if threads else None
    return ", ".join(str(part) for part in (hardware.get("gpu"), hardware.get("cpu"), count) if part)


def _curves(rows: Sequence[Mapping[str, Any]], score: str) -> dict[str, list[Any]]:
    """Rows to columns; a column without any number is left out. score: the name of the headline."""
    paths = {  # name in the page: where a row of metrics.jsonl has it
        "epoch": ("epoch",),
        "train_loss": ("train", "loss"),
        "train_score": ("train", score),
        "val_loss": ("val", "loss"),
        "val_score": ("val", score),
        "soft": ("size_mb", "soft"),
        "true": ("size_mb", "true"),
    }
    columns = {name: [_inside(row, path) for row in rows] for name, path in paths.items()}
    columns["epoch"] = [at if epoch is None else epoch for at, epoch in enumerate(columns["epoch"], 1)]
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def _inside(row: object, path: Iterable[str]) -> float | None:
    for key in path:
        row = row.get(key) if isinstance(row, dict) else None
    return float(row) if isinstance(row, (int, float)) and is_number(row) else None


def _rows(run: Run) -> list[dict[str, Any]]:
    """The epochs of a run; none where they cannot be read, or are too many for a page."""
    try:
        return read_rows(run.folder / METRICS, MOST_BYTES)
    except OSError:
        return []


def score_and_unit(headline: Headline, value: float | None, std: float | None = None) -> str:
    """As the tables write it, with its unit: "99.17 ± 0.10 %"; "" for None."""
    if value is None:
        return ""
    return headline.spread_text(value, std) + (" %" if headline.unit == PERCENT else "")
