"""Files that are written so that no reader ever sees half of one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

PARTIAL = ".partial"  # of a file that is being written
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
MOST_BYTES = 64 * 2**20  # of a record
DEEPEST = 40  # levels of values inside each other


def user_path(given: str | Path) -> Path:
    """A path as a user types it; `~` stands for the home folder, where there is one."""
    try:
        return Path(given).expanduser()
    except RuntimeError:  # ~somebody, who is unknown
        return Path(given)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path`, then rename: the old file stays whole until the new file is complete on the disk.

    A failed write leaves nothing. A link is followed. Raises: OSError where `path` is no regular file.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is a folder or a device, not a file that can be replaced")
    beside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too, where the system can do that."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def locks_explained(folder: Path) -> Iterator[None]:
    """Where a lock is taken inside the `with`. Raises: OSError that says so where the file system has no locks."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise OSError(
            f"{folder}: its file system has no locks ({reason}), by which processes keep out of each other's way; "
            "choose a folder on another file system"
        ) from error


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON object that a person can read; numbers that are not finite become null."""
    with replacing(path) as file:
        file.write(json.dumps(finite(values), indent=2).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, {} where there is no file. Raises: ValueError with the path of a bad file."""
    values = read_values(path)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a JSON object is expected, not a {type(values).__name__}")
    return values


def read_values(path: Path) -> object:
    """The JSON value in a file, {} where there is no file. Raises: ValueError with the path of a bad file.

    Bad are files of more than MOST_BYTES, values nested deeper than DEEPEST, and what is no regular file.
    """
    try:
        return parsed_json(read_regular(path, MOST_BYTES))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def read_regular(path: Path, most: int | None = None) -> bytes:
    """The bytes of a regular file, of at most `most`. Raises: FileNotFoundError; ValueError for another file."""
    if not path.is_file():  # a pipe would block, /dev/zero never end
        raise ValueError("no regular file") if os.path.lexists(path) else FileNotFoundError(path)
    if most is not None and (size := path.stat().st_size) > most:
        raise ValueError(f"{size} bytes; at most {most} are read")
    return path.read_bytes()


def parsed_json(text: bytes) -> object:
    """The value of a text in JSON, which can be walked through by recursion. Raises: ValueError."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _is_deeper(value, DEEPEST):
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def _is_deeper(value: object, levels: int) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is not None and (levels == 0 or any(_is_deeper(item, levels - 1) for item in inside))


def finite(value: object) -> object:
    """The same value for JSON, which has no nan and no infinity: they become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
