"""Images in tar shards, on this disk or elsewhere: sets that do not fit on one disk as folders of files."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from .base import ImageData
from .digest import of_shards
from .order import generator
from .shard_files import Cache
from .shards import Shard, Shards, shards_of
from .streams import from_datasets

GB = 10**9


def webdataset(
    *,
    train: str,
    test: str,
    val: str | None,
    num_classes: int,
    image_size: int,
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    min_scale: float,
    cache_dir: str | None,
    cache_gb: float | None,
    device: torch.device | str,
    batch_size: int,
    seed: int,
    val_fraction: float,
    flip: bool,
    num_workers: int = 0,
) -> ImageData:
    """`train`, `test`, `val`: shards, as `shards_of` takes them. Without `val`, whole shards are held out.

    Raises: ValueError naming a shard that cannot be read, or where too few are there to hold out of.
    """
    if cache_gb is not None and cache_gb < 0:
        raise ValueError(f"dataset.cache_gb={cache_gb} is below 0")
    found = {"train": shards_of(train), "test": shards_of(test)} | ({"val": shards_of(val)} if val else {})
    digest = of_shards({part: [(shard.url, shard.samples) for shard in shards] for part, shards in found.items()})
    if val is None and val_fraction:
        found["train"], found["val"] = _held_out(found["train"], val_fraction, seed)
    cache = Cache(cache_dir, None if cache_gb is None else round(cache_gb * GB))
    parts = {part: Shards(shards, cache, num_classes, channels) for part, shards in found.items()}
    return from_datasets(
        train=parts["train"], test=parts["test"], val=parts.get("val"), name="webdataset", digest=digest,
        classes=[str(number) for number in range(num_classes)], image_size=image_size, channels=channels,
        mean=mean, std=std, min_scale=min_scale, device=device, batch_size=batch_size, seed=seed, flip=flip,
        num_workers=num_workers,
    )  # fmt: skip


def _held_out(shards: list[Shard], fraction: float, seed: int) -> tuple[list[Shard], list[Shard]]:
    """The shards that stay, and those that are held out: as many whole ones as `fraction` asks for, rounded up."""
    held = math.ceil(fraction * len(shards))
    if held >= len(shards):
        counts = f"{len(shards)} shards are too few to hold {held} out"
        raise ValueError(f"val_fraction={fraction}: {counts}; give dataset.val, or val_fraction=0")
    order = torch.randperm(len(shards), generator=generator("split", seed)).tolist()
    return [shards[at] for at in sorted(order[held:])], [shards[at] for at in sorted(order[:held])]
