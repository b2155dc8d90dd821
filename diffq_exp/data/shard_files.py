"""The tar files of shards: where they lie, how those that lie elsewhere come to this disk, what is in them.

A shard is brought under a lock of its own, written beside its place, read through and renamed: of several workers
and ranks one brings it, and none sees half of it. It is opened before others may drop it from the cache again.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from ..common.files import PARTIAL, locks_explained, replacing, user_path
from ..common.packages import install_command

LOCAL, REMOTE = ("", "file"), ("http", "https", "gs", "hf")  # schemes; not pipe:, which would run a command
CHUNK = 1 << 20

Members = dict[str, tuple[int, int]]  # of a sample: suffix -> (offset, size) in the tar file


def library() -> ModuleType:
    """The package webdataset. Raises: ValueError where it is not installed."""
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise ValueError(f"dataset=webdataset needs its package: {install_command('webdataset')}") from error
    package: ModuleType = webdataset
    return package


def is_here(url: str) -> bool:
    """Whether a shard is a file of this machine. Raises: ValueError for an address that is not allowed."""
    scheme = urlsplit(url).scheme
    if scheme not in (*LOCAL, *REMOTE):
        raise ValueError(f"{url}: {scheme}: is not allowed; allowed are files, {', '.join(REMOTE)}")
    return scheme in LOCAL


def local_path(url: str) -> str:
    return str(user_path(unquote(urlsplit(url).path) if urlsplit(url).scheme == "file" else url))


@dataclass(frozen=True)
class Cache:
    """Where shards that lie elsewhere are kept, and how many bytes of them; None: all."""

    folder: str | None
    most_bytes: int | None = None

    def opened(self, url: str) -> tuple[BinaryIO, list[Members]]:
        """The file of a shard, brought first if it is not there, and what is in it.

        Raises: ValueError naming the shard.
        """
        from filelock import FileLock

        if is_here(url):
            return _read_through(open_here(local_path(url)), url)
        if self.folder is None:
            raise ValueError(f"{url}: dataset.cache_dir=null leaves no place for it; give a folder")
        folder, name = user_path(self.folder), _name_in_cache(url)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locks_explained(folder), FileLock(folder / f".{name}.lock"):
                if (file := _kept(folder / name)) is None:
                    return self._bring(url, folder / name)
        except (OSError, ValueError, ImportError) as error:
            reason = " ".join(str(error).split()).removeprefix(f"{url}: ")
            raise ValueError(f"{url}: cannot be brought ({reason})") from error
        return _read_through(file, f"{url}, as {file.name}")

    def _bring(self, url: str, path: Path) -> tuple[BinaryIO, list[Members]]:
        """Under the lock of the shard; -> the file, open, and what is in it."""
        for left in path.parent.glob(f".{path.name}.*{PARTIAL}"):  # of a process that was killed
            left.unlink()
        with replacing(path) as file:
            with library().gopen(url) as source:
                shutil.copyfileobj(source, file, CHUNK)
            file.flush()
            brought = _read_through(open_here(file.name), url)
        self._drop_oldest(path)
        return brought

    def _drop_oldest(self, newest: Path) -> None:
        if self.most_bytes is None:
            return
        files = [(status.st_mtime_ns, path, status.st_size) for path, status in _shards_in(newest.parent)]
        total = sum(size for _, _, size in files)
        for _, path, size in sorted(files):
            if total > self.most_bytes and path != newest:
                path.unlink(missing_ok=True)
                total -= size


def _name_in_cache(url: str) -> str:
    return f"{sha256(url.encode()).hexdigest()[:16]}-{re.sub('[^A-Za-z0-9._-]', '_', url)[-64:]}"


def _shards_in(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Whole ones, without those that another process drops meanwhile."""
    found = []
    for path in folder.glob(16 * "[0-9a-f]" + "-*"):
        with suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return found


def _kept(path: Path) -> BinaryIO | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _read_through(file: BinaryIO, name: str) -> tuple[BinaryIO, list[Members]]:
    """An open file and what is in it; closed where it is no shard. Raises: ValueError."""
    with ExitStack() as stack:
        stack.enter_context(file)
        members = members_of(file, name)
        stack.pop_all()  # it stays open
    return file, members


def open_here(path: str) -> BinaryIO:
    """Raises: ValueError naming a shard that cannot be opened."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def members_of(file: BinaryIO, name: str) -> list[Members]:
    """Where the files of each sample lie, grouped as the library groups them. name: of the shard, for messages.

    Raises: ValueError where it is no tar file, compressed, cut short or damaged.
    """
    kit: Any = library().tariterators
    samples: list[Members] = []
    last = None
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, suffix = kit.base_plus_ext(member.name)
                if not member.isreg() or key is None or re.match(r"__[^/]*__($|/)", member.name):
                    continue
                if key != last:
                    samples.append({})
                    last = key
                samples[-1][suffix.lower()] = (member.offset_data, member.size)
            end = tar.offset
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
    except tarfile.TarError as error:
        reason = "it is cut short" if samples else "no tar file, or a compressed one"
        raise ValueError(f"{name}: cannot be read ({reason})") from error
    _check_end(file, end, name)
    return samples


def _check_end(file: BinaryIO, end: int, name: str) -> None:
    """See that a tar file ends with a block of zeros, or more: tarfile takes any end, or none, for the end."""
    size = file.seek(0, os.SEEK_END)
    if size - end < tarfile.BLOCKSIZE:
        raise ValueError(f"{name}: cannot be read (it is cut short: no zeros end it, after byte {end})")
    file.seek(end)
    while chunk := file.read(CHUNK):
        if any(chunk):
            raise ValueError(f"{name}: cannot be read (it is damaged: what follows byte {end} is no file)")
