"""The records that a run leaves: result.json and metrics.jsonl, written so that no reader ever sees half a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

RESULT = "result.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
LOG = "train.log"
MODEL = "model.safetensors"
EARLIER = ".earlier"  # where restart=true puts what a run left, until it is done again
LEFT_BY_A_RUN = (RESULT, METRICS, MODEL, LOG, "checkpoint.pt", ".hydra", "wandb")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path`, then rename: the old file stays whole until the new one is, on the disk too.

    Of a failed write nothing is left. A link is followed. Raises: OSError for what is there and no regular file.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is a folder or a device, not a file that can be replaced")
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write one JSON object, readable by a person; numbers that are not finite become null."""
    with replacing(path) as file:
        file.write(json.dumps(_finite(values), indent=2).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is no file. Raises: ValueError naming a file that is none."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as fault:
        raise ValueError(f"{path}: not JSON ({fault})") from fault
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a JSON object is expected, not a {type(values).__name__}")
    return values


def status_of(path: Path) -> str | None:
    """The status of a run's folder, None without one; `killed` where it says running and nobody holds the lock."""
    status = read_json(path / RESULT).get("status")
    return "killed" if status == "running" and not is_locked(path) else status


def is_locked(path: Path) -> bool:
    """Whether a process is at work in a run's folder; `running` in a result with a free lock means killed."""
    if not (path / LOCK).exists():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a disk that is only read: nobody works there
        return False
    lock.release()
    return False


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


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Make a metrics.jsonl hold exactly these rows."""
    with replacing(path) as file:
        for row in rows:
            file.write(_line(row))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row, down to the disk."""
    with open(path, "ab") as file:
        file.write(_line(row))
        file.flush()
        os.fsync(file.fileno())


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(_finite(row)).encode() + b"\n"


def _finite(value: Any) -> Any:
    """JSON knows no nan and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
