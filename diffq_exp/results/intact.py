"""Whether the stored network of a finished run is still the file that the run left; without torch."""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from pathlib import Path

from ..common.units import MB
from .records import RunRecord
from .run_files import MODEL

_AT_ONCE = 2**20  # bytes


def file_checksum(path: Path) -> str:
    """BLAKE2b of 8 bytes, in hexadecimal digits. Raises: OSError."""
    stat = path.stat()
    return _checksum(path, stat.st_size, stat.st_mtime_ns)


@cache
def _checksum(path: Path, size: int, changed: int) -> str:
    digest = blake2b(digest_size=8)
    with open(path, "rb") as file:
        while part := file.read(_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def damage(folder: Path, record: RunRecord) -> str | None:
    """What is wrong with the file of a finished run, None where it is as it was. Raises: OSError.

    A record of an earlier version has no checksum; there the sizes are compared.
    """
    path = folder / MODEL
    if not path.is_file():
        return f"{path} is gone"
    given, size = path.stat().st_size, record.number("size_mb", "file")
    if size is not None and given != round(size * MB):
        return f"{path} is damaged: it has {given:,} bytes, the run left {round(size * MB):,}"
    if record.checksum is not None and file_checksum(path) != record.checksum:
        return f"{path} is damaged: it is not the file that the run left"
    return None
