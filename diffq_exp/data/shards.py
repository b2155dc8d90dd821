"""Tar shards of images, in the layout of the webdataset library, as a data set of which any image can be read.

A sample is the files of one name beside each other in a shard: 000017.jpg, 000017.cls. The library expands the
names of shards, and brings those that lie elsewhere into a cache on disk. A plain tar file can be entered anywhere,
so an epoch is an order of images and no stream: it resumes at any batch, with any number of workers. The order goes
through a few shards at a time, so that a shard is brought once in an epoch.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..common.files import user_path
from .class_folders import decode_image
from .order import generator

if TYPE_CHECKING:
    from PIL import Image

IMAGES, TARGET = ("jpg", "jpeg", "png", "webp"), "cls"  # the library's suffixes of an image and of a class
LOCAL, REMOTE = ("", "file"), ("http", "https", "gs", "hf")  # schemes; not pipe:, which would run a command
AT_ONCE = 4  # shards that the images of a moment are drawn from
_OPEN = 4 * AT_ONCE  # shards that a process keeps open

Members = dict[str, tuple[int, int]]  # of a sample: suffix -> (offset, size) in the tar file


def library() -> ModuleType:
    """The package webdataset. Raises: ValueError where it is not installed."""
    try:
        import webdataset
        import webdataset.cache
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError as error:
        raise ValueError("dataset=webdataset needs the package webdataset: pip install webdataset") from error
    package: ModuleType = webdataset
    return package


@dataclass(frozen=True)
class Shard:
    """A shard and how many samples it has."""

    url: str
    samples: int


@dataclass(frozen=True)
class Cache:
    """Where shards that lie elsewhere are kept, and how many bytes of them; below 0: all."""

    folder: str
    most_bytes: int = -1

    def path_of(self, url: str) -> str:
        """The file of a shard, brought first if it is not there. Raises: ValueError naming the shard."""
        from filelock import FileLock

        if _scheme(url) in LOCAL:
            return _local_path(url)
        folder = user_path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = library().cache.FileCache(
            str(folder), url_to_name=_name_in_cache, validator=None, cache_size=self.most_bytes
        )
        try:
            with FileLock(folder / f".{_name_in_cache(url)}.lock"):  # each worker wants it at the same time
                return str(files.get_file(url))
        except (OSError, ValueError) as error:
            raise ValueError(f"{url}: cannot be brought ({' '.join(str(error).split())})") from error


def shards_of(spec: str) -> list[Shard]:
    """The shards of "train-{000..146}.tar", or of a JSON index as `index_of` makes it.

    Shards that lie elsewhere need an index, since only reading them would say how many samples they have.
    Raises: ValueError naming what is wrong.
    """
    if spec.endswith(".json"):
        return _indexed(user_path(spec))
    urls = library().shardlists.expand_urls(spec)
    for url in urls:
        if _checked_scheme(url) not in LOCAL:
            raise ValueError(f"{spec}: shards that lie elsewhere need an index; see scripts/index_shards.py")
    paths = [_local_path(url) for url in urls]
    return [Shard(path, len(members_of(path))) for path in paths]


def index_of(shards: Sequence[Shard]) -> dict[str, object]:
    """What an index says, in JSON's types; addresses may be relative to the index."""
    return {"shardlist": [{"url": shard.url, "nsamples": shard.samples} for shard in shards]}


def _indexed(path: Path) -> list[Shard]:
    try:
        entries = json.loads(path.read_text())["shardlist"]
        shards = [Shard(str(entry["url"]), int(entry["nsamples"])) for entry in entries]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no index of shards, as scripts/index_shards.py makes it") from error
    beside = {shard.url: _checked_scheme(shard.url) == "" for shard in shards}
    return [
        Shard(str(path.parent / shard.url) if beside[shard.url] else shard.url, shard.samples) for shard in shards
    ]


def _scheme(url: str) -> str:
    return urlsplit(url).scheme


def _checked_scheme(url: str) -> str:
    scheme = _scheme(url)
    if scheme not in (*LOCAL, *REMOTE):
        raise ValueError(f"{url}: {scheme}: is not allowed; allowed are files, {', '.join(REMOTE)}")
    return scheme


def _local_path(url: str) -> str:
    return str(user_path(unquote(urlsplit(url).path) if _scheme(url) == "file" else url))


def _name_in_cache(url: str) -> str:
    return f"{sha256(url.encode()).hexdigest()[:16]}-{re.sub('[^A-Za-z0-9._-]', '_', url)[-64:]}"


def members_of(path: str, url: str | None = None) -> list[Members]:
    """Where the files of each sample lie, grouped as the library groups them. url: where the shard came from.

    Raises: ValueError naming the shard where it is missing, no tar file, or compressed.
    """
    kit: Any = library().tariterators
    samples: list[Members] = []
    last = None
    try:
        with tarfile.open(path, "r:") as tar:
            for file in tar:
                name, suffix = kit.base_plus_ext(file.name)
                if not file.isreg() or name is None or re.match(r"__[^/]*__($|/)", file.name):
                    continue
                if name != last:
                    samples.append({})
                    last = name
                samples[-1][suffix.lower()] = (file.offset_data, file.size)
    except (OSError, tarfile.TarError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no tar file, or a compressed one"
        raise ValueError(f"{url or path}: cannot be read ({reason})") from error
    return samples


class Shards(Dataset[Any]):
    """Pairs of a PIL image and a class in 0..classes - 1, from shards in their order."""

    def __init__(self, shards: Sequence[Shard], cache: Cache, classes: int, channels: int) -> None:
        self.shards, self.cache, self.classes, self.channels = list(shards), cache, classes, channels
        self.ends = list(accumulate(shard.samples for shard in shards))
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_open": OrderedDict()}  # a worker opens files of its own

    def order(self, seed: int, epoch: int) -> Tensor:
        """A permutation of range(len(self)): shards at random, and the images of AT_ONCE of them mixed."""
        draws = generator("shards", seed, epoch)
        starts, parts = [0, *self.ends], []
        shards = torch.randperm(len(self.shards), generator=draws).tolist()
        for first in range(0, len(shards), AT_ONCE):
            together = shards[first : first + AT_ONCE]
            images = torch.cat([torch.arange(starts[at], starts[at + 1]) for at in together])
            parts.append(images[torch.randperm(len(images), generator=draws)])
        return torch.cat(parts)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        number = bisect_right(self.ends, index)
        shard = self.shards[number]
        at = index - self.ends[number] + shard.samples
        files, name = self._opened(number).read(at), f"{shard.url}, sample {at}"
        suffix = next((suffix for suffix in IMAGES if suffix in files), None)
        if suffix is None or TARGET not in files:
            raise ValueError(f"{name}: needs .{TARGET} and one of {', '.join(IMAGES)}; it has {sorted(files)}")
        return decode_image(files[suffix], name, self.channels), self._class(files[TARGET], name)

    def _class(self, text: bytes, name: str) -> int:
        try:
            target = int(text)
        except ValueError:
            target = -1
        if not 0 <= target < self.classes:
            raise ValueError(f"{name}: its class is {text[:20]!r}, allowed are 0..{self.classes - 1}")
        return target

    def _opened(self, number: int) -> _OpenShard:
        if number not in self._open:
            if len(self._open) >= _OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = _OpenShard(self.shards[number], self.cache)
        self._open.move_to_end(number)
        return self._open[number]


class _OpenShard:
    """The file of a shard, open, and where its samples lie; a file that the cache drops stays readable."""

    def __init__(self, shard: Shard, cache: Cache) -> None:
        path = cache.path_of(shard.url)
        self._members = members_of(path, shard.url)
        if len(self._members) != shard.samples:
            counts = f"it has {len(self._members)} samples, and {shard.samples} were counted"
            raise ValueError(f"{shard.url}: {counts}; has it changed, or its index?")
        self._file = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._file)

    def read(self, at: int) -> Mapping[str, bytes]:
        """The files of a sample; no position is moved, so that forked workers may share the file."""
        wanted = (*IMAGES, TARGET)
        return {
            suffix: os.pread(self._file, size, offset) if suffix in wanted else b""
            for suffix, (offset, size) in self._members[at].items()
        }
