"""The examples of a part of a data set as 16 characters, by which a run sees that they changed under it.

Of tensors in memory every byte counts: 0.2 s for CIFAR-10. Of streamed files, names and sizes count, and the
contents of a sample: a look at each of ImageNet's 1.3 million files takes seconds, reading them takes an hour. The
times of the files stand apart, since a copied folder may have new ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

SAMPLE, HEAD = 256, 1 << 16  # files of a part whose contents are read, and how many bytes of each
FILE_TIMES = "file_times"  # entry beside those of the parts
_CHUNK = 4096  # files that a thread looks at before it takes the next lot
_THREADS = 16  # they wait for a file system, which may be far away


def of_tensors(*tensors: Tensor, names: Iterable[str] = ()) -> str:
    """Of tensors of any shape, their types and their bytes, and of names, of classes for example."""
    digest = hashlib.sha256("\0".join(names).encode(errors="surrogateescape"))
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def of_folders(parts: Mapping[str, Any]) -> dict[str, str]:
    """Of parts that are image folders of torchvision (`root`, `samples`: pairs of a file and a target); else {}.

    {part: digest}, and one of all times under FILE_TIMES. Raises: OSError where a file is gone.
    """
    if not all(hasattr(part, "samples") and hasattr(part, "root") for part in parts.values()):
        return {}
    digests, times = {}, hashlib.sha256()
    for name, part in parts.items():
        files = [os.fspath(file) for file, _ in part.samples]
        digests[name] = _of_files(files, str(part.root), times)
    return {**digests, FILE_TIMES: times.hexdigest()[:16]}


def of_sample(targets: Tensor, count: int, content: Callable[[int], bytes]) -> str:
    """Of all targets of `count` examples, and of the contents of a sample of these."""
    digest = hashlib.sha256(of_tensors(targets).encode())
    for at in _sample(count):
        digest.update(content(at)[:HEAD])
    return digest.hexdigest()[:16]


def _sample(count: int) -> range:
    return range(0, count, -(-count // SAMPLE) or 1)


def of_shards(parts: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, str]:
    """Of addresses of shards, the number of samples of each, and the sizes and beginnings of those on this disk."""
    digests = {}
    for part, shards in parts.items():
        digest = hashlib.sha256(repr([(os.path.basename(url), samples) for url, samples in shards]).encode())
        here = [url for url, _ in shards if os.path.isfile(url)]
        digest.update(_of_files(here, "", times=hashlib.sha256()).encode() if here else b"")
        digests[part] = digest.hexdigest()[:16]
    return digests


def _of_files(files: Sequence[str], root: str, times: hashlib._Hash) -> str:
    looked = _sizes_and_times(files)
    times.update(repr([time for _, time in looked]).encode())
    below = [file.removeprefix(root) for file in files]  # a folder may lie elsewhere next time
    digest = hashlib.sha256(os.fsencode("\0".join(below)) + repr([size for size, _ in looked]).encode())
    for at in _sample(len(files)):
        with open(files[at], "rb") as stream:
            digest.update(stream.read(HEAD))
    return digest.hexdigest()[:16]


def _sizes_and_times(files: Sequence[str]) -> list[tuple[int, int]]:
    def look(start: int) -> list[tuple[int, int]]:
        found = map(os.stat, files[start : start + _CHUNK])
        return [(status.st_size, status.st_mtime_ns) for status in found]

    with ThreadPoolExecutor(_THREADS) as pool:
        return [pair for pairs in pool.map(look, range(0, len(files), _CHUNK)) for pair in pairs]


def changed(before: Mapping[str, object], now: Mapping[str, str]) -> list[str]:
    """The parts whose examples are others: those that both digests have, and that differ."""
    return [part for part in now if part != FILE_TIMES and before.get(part, now[part]) != now[part]]
