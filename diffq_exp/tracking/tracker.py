"""What a run asks of whatever tracks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

Row: TypeAlias = dict[str, Any]  # nested, in JSON's types, as in metrics.jsonl


class Tracker(Protocol):
    """Is started with the rows so far, gets each row, and at the end the result and the stored network."""

    @property
    def url_or_dir(self) -> str | None: ...
    def start(self, folder: Path, run_id: str, name: str, config: Row, history: Sequence[Row]) -> None: ...
    def log(self, row: Row) -> None: ...
    def finish(self, result: Row | None, file: Path | None, exit_code: int) -> None: ...
