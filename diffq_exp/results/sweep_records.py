"""The records of sweeps, outputs/.sweeps/NAME.json: the planned jobs, and what a sweep compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.files import read_json
from ..common.names import unknown
from .discovery import MISSING, Run
from .records import RunRecord

SWEEPS = ".sweeps"
_NOT_COMPARED = {  # what moves a run along its front, what is averaged, and what makes another problem
    *("penalty", "bits", "target_mb", "target_ratio"),
    *("seed", "init_from", "dataset", "model", "task", "dataset.root", "dataset.path", "model.name"),
}


@dataclass(frozen=True)
class Sweep:
    """What a sweep was to do: the command, the keys that tell its methods apart, and its jobs, done or not."""

    name: str
    command: str
    by: tuple[str, ...]
    jobs: tuple[Run, ...]  # all of status `missing`; `runs_of` puts the runs that exist in their places


def read_sweep(outputs: Path, name: str) -> Sweep:
    """The record of a sweep. Raises: ValueError where it is damaged or does not exist, with the sweeps that do."""
    path = outputs / SWEEPS / f"{name}.json"
    if not path.is_file():
        raise ValueError(unknown("sweep", name, sorted(other.stem for other in path.parent.glob("*.json"))))
    record = read_json(path)
    try:
        jobs = tuple(_planned(outputs, job) for job in record["jobs"])
        return Sweep(_text(record["name"]), _text(record["command"]), _keys(record.get("by") or swept(jobs)), jobs)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not the record of a sweep ({type(error).__name__}: {error!s:.200})") from error


def runs_of(sweep: Sweep, runs: Sequence[Run]) -> list[Run]:
    """The sweep's runs in its own order; a job without a run stays, as `missing`."""
    found = {run.signature: run for run in runs}
    return [found.get(job.signature, job) for job in sweep.jobs]


def swept(jobs: Iterable[Run]) -> tuple[str, ...]:
    """The keys with several values among the jobs: what a sweep compares.

    Not the penalty and the like, which move a run along the front of its method, nor the seed.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for job in jobs:
        for key, value in job.own.items():
            values[key].add(repr(value))
    keys = [
        key for key, found in values.items() if len(found) > 1 and not _NOT_COMPARED & {key, key.rpartition(".")[2]}
    ]
    return tuple(sorted(keys, key=lambda key: key != "quantizer")) or ("quantizer",)


def compared_by(roots: Iterable[Path], runs: Sequence[Run]) -> tuple[str, ...]:
    """The keys that tell methods apart in a report of any runs: the quantizer, and what their sweeps compare."""
    keys, signatures = {"quantizer": None}, {run.signature for run in runs}
    for root in roots:
        for path in sorted((root / SWEEPS).glob("*.json")):
            with suppress(ValueError, OSError):
                sweep = read_sweep(root, path.stem)
                keys |= dict.fromkeys(sweep.by if signatures & {job.signature for job in sweep.jobs} else ())
    different = {run.choices.get("quantizer") for run in runs if run.status == "finished"}
    return tuple(key for key in keys if key != "quantizer" or len(different) > 1 or len(keys) == 1)


def _planned(outputs: Path, job: Mapping[str, Any]) -> Run:
    return Run(outputs / _text(job["folder"]), RunRecord.from_json(job), MISSING)


def _keys(names: Sequence[object]) -> tuple[str, ...]:
    return tuple(_text(name) for name in names)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value
