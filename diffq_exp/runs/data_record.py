"""The data of a run in its record, and whether the data of now are still those.

Records that were written before there were digests agree with any data.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig

from ..common.files import user_path
from ..data import Data
from ..data.digest import FILE_TIMES, changed
from ..parallel.ranks import Ranks
from ..results.records import RunRecord, is_run, read_record
from ..results.run_files import CHECKPOINT
from .build import build_data

log = logging.getLogger("diffq_exp")
DIGEST = "digest"  # entry of a record's data


def describe(data: Data) -> dict[str, object]:
    """What stands under "data" in the record of a run."""
    described = {"name": data.name, **data.facts, "unit": data.unit, **_examples(data)}
    return described | ({DIGEST: dict(data.digest)} if data.digest else {})


def _examples(data: Data) -> dict[str, int]:
    parts = {"train": data.train, "val": data.val, "test": data.test}
    return {name: part.examples for name, part in parts.items() if part is not None}


def difference(recorded: Mapping[str, object], data: Data) -> str:
    """How the data of now differ from those in a record: "train (64 examples, now 10), test"; "" if they do not."""
    before, now = recorded.get(DIGEST), _examples(data)
    parts = []
    for part in changed(before, data.digest) if isinstance(before, Mapping) else []:
        counts = recorded.get(part), now.get(part)
        parts.append(f"{part} ({counts[0]} examples, now {counts[1]})" if counts[0] != counts[1] else part)
    return ", ".join(parts)


def check_unchanged(recorded: Mapping[str, object], data: Data, folder: Path) -> None:
    """See that a run goes on with the data that it began with; newer times of equal files are a warning.

    Raises: ValueError naming the parts that changed.
    """
    if not (folder / CHECKPOINT).is_file():
        return
    if found := difference(recorded, data):
        raise ValueError(
            f"the data have changed since the run began: {found}; bring them back, or begin anew by restart=true"
        )
    before = recorded.get(DIGEST)
    if isinstance(before, Mapping) and before.get(FILE_TIMES) != data.digest.get(FILE_TIMES):
        log.warning(
            "files of the data have other times than when the run began; their names and sizes are the same"
        )


def check_alike(data: Data, ranks: Ranks) -> None:
    """See that all ranks have the same data: else they would compute different numbers of batches, and wait.

    Raises: ValueError naming the parts that differ, on every rank.
    """
    (first, *others), parts = ranks.every(_view(data)), ("train", "val", "test", "model")
    for rank, other in enumerate(others, start=1):
        if found := [
            f"{part} ({first[part]}, there {other[part]})" for part in parts if first[part] != other[part]
        ]:
            hosts = f"rank {rank} ({other['host']}) has others than rank 0 ({first['host']})"
            raise ValueError(f"the data must be equal on all ranks; {hosts}: {'; '.join(found)}")


def _view(data: Data) -> dict[str, str]:
    """What ranks compare of the data, as it is told."""
    view = {"host": platform.node(), "model": str(data.model_arguments)}
    for part, loader in {"train": data.train, "val": data.val, "test": data.test}.items():
        counts = "none" if loader is None else f"{loader.examples} {data.unit} in {len(loader)} batches"
        view[part] = f"{counts}, digest {data.digest[part]}" if part in data.digest else counts
    return view


def tell_if_changed(record: RunRecord, cfg: DictConfig, what: str = "its data") -> None:
    """Warn where the data of a finished run, called `what`, have changed since, or cannot be read any more."""
    if DIGEST not in record.data:
        return
    try:
        found = difference(record.data, build_data(cfg, torch.device("cpu")))
    except Exception as error:  # of a data set that may be the user's own: the result is shown all the same
        log.warning(f"{what} cannot be read now: {' '.join(str(error).split())}")
        return
    if found:
        log.warning(f"{what} have changed since: {found}; restart=true does it again with those of now")


def tell_if_sources_changed(record: RunRecord, cfg: DictConfig, data: Data) -> None:
    """Warn where a network that a run begins from or follows was trained on what its data set was before."""
    for key in ("init_from", "teacher"):
        source = user_path(cfg[key]) if cfg[key] is not None else Path()
        other = read_record(source) if cfg[key] is not None and is_run(source) else RunRecord()
        if other.config.get("dataset") == record.config.get("dataset") and (found := difference(other.data, data)):
            log.warning(f"{key}={source}: the data have changed since this network was trained: {found}")
