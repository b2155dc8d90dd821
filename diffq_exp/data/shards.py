"""Tar shards of images, in the layout of the webdataset library, as a data set of which any image can be read.

A sample is the files of one name beside each other in a shard: 000017.jpg, 000017.cls. The library expands the
names of shards, and opens addresses elsewhere. A plain tar file can be entered anywhere, so an epoch is an order of
images and no stream: it resumes at any batch, with any number of workers. The order goes through a few shards at a
time, so that a shard is brought once in an epoch.
"""

from __future__ import annotations

import json
import os
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..common.files import user_path
from .class_folders import decode_image
from .order import generator
from .shard_files import Cache, is_here, library, local_path, members_of, open_here

if TYPE_CHECKING:
    from PIL import Image

IMAGES, TARGET = ("jpg", "jpeg", "png", "webp"), "cls"  # the library's suffixes of an image and of a class
AT_ONCE = 4  # shards that the images of a moment are drawn from
_OPEN = 4 * AT_ONCE  # shards that a process keeps open


@dataclass(frozen=True)
class Shard:
    """A shard and how many samples it has."""

    url: str
    samples: int


def shards_of(spec: str) -> list[Shard]:
    """The shards of "train-{000..146}.tar", or of a JSON index as `index_of` makes it.

    Shards that lie elsewhere need an index, since only reading them would say how many samples they have.
    Raises: ValueError naming what is wrong.
    """
    if spec.endswith(".json"):
        return _indexed(user_path(spec))
    urls = library().shardlists.expand_urls(spec)
    if not all(map(is_here, urls)):
        raise ValueError(f"{spec}: shards that lie elsewhere need an index; see scripts/index_shards.py")
    return [Shard(path, _count(path)) for path in map(local_path, urls)]


def _count(path: str) -> int:
    with open_here(path) as file:
        return len(members_of(file, path))


def index_of(shards: Sequence[Shard]) -> dict[str, object]:
    """What an index says, in JSON's types; addresses may be relative to the index."""
    return {"shardlist": [{"url": shard.url, "nsamples": shard.samples} for shard in shards]}


def _indexed(path: Path) -> list[Shard]:
    try:
        entries = [(str(entry["url"]), entry["nsamples"]) for entry in json.loads(path.read_text())["shardlist"]]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no index of shards, as scripts/index_shards.py makes it") from error
    for url, samples in entries:
        if type(samples) is not int or samples < 0:
            raise ValueError(f"{path}: nsamples of {url} is {samples!r}, allowed are whole numbers from 0 on")
    return [Shard(_beside(path, url), samples) for url, samples in entries]


def _beside(index: Path, url: str) -> str:
    """The address of a shard, of one on this disk its path; one that is relative is so to the index."""
    return str(index.parent / local_path(url)) if is_here(url) else url


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
        file, self._members = cache.opened(shard.url)
        self.close = weakref.finalize(self, file.close)
        self._file = file.fileno()
        if len(self._members) != shard.samples:
            counts = f"it has {len(self._members)} samples, and {shard.samples} were counted"
            raise ValueError(f"{shard.url}: {counts}; has it changed, or its index?")

    def read(self, at: int) -> Mapping[str, bytes]:
        """The files of a sample; no position is moved, so that forked workers may share the file."""
        wanted = (*IMAGES, TARGET)
        return {
            suffix: os.pread(self._file, size, offset) if suffix in wanted else b""
            for suffix, (offset, size) in self._members[at].items()
        }
