"""The runs below a folder as objects, found and read without torch; and what a sweep had planned.

A run keeps its record as it was read; everything else is looked up in it. Folders that no report should look into
(hidden ones, W&B's, earlier reports) are not entered, and nothing below a run's folder is: 1,000 runs are read in
less than half a second.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .records import RESULT, is_locked, read_json
from .renamed import new_name, with_targets

SWEEPS = ".sweeps"
MISSING = "missing"  # status of a job that was planned and left no result
UNREADABLE = "unreadable"
_NOT_ENTERED = ("wandb", "report")
_KINDS: dict[str, Any] = {  # of what a result.json may hold
    **dict.fromkeys(("choices", "config", "data", "test", "val", "size_mb", "bits", "hardware", "versions"), dict),
    **dict.fromkeys(("status", "signature", "run_id", "git_commit", "device", "reason", "config_dir"), str),
    **dict.fromkeys(("seconds", "epoch", "epochs", "step"), (int, float)),
    "overrides": list,
}
_REFERENCE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Run:
    """One run. `status`: that of its result, or killed, missing, unreadable. `source`: the run it began from."""

    folder: Path
    result: dict[str, Any] = field(repr=False)
    status: str
    source: Run | None = field(default=None, repr=False)

    @property
    def signature(self) -> str:
        return str(self.result.get("signature", ""))

    @cached_property
    def config(self) -> dict[str, Any]:
        return _mapping(with_targets(self.result.get("config"), new_name))

    @property
    def choices(self) -> dict[str, str]:
        return _mapping(self.result.get("choices"))

    @property
    def overrides(self) -> list[str]:
        return [str(one) for one in self.result.get("overrides") or []]

    @property
    def problem(self) -> tuple[str, str]:
        """(dataset, model): the choices, and which folder or which network where a choice stands for many."""
        root, network = self.value("dataset.root"), self.value("model.name")
        dataset = self.choices.get("dataset", "?") + (f" {Path(root).name}" if isinstance(root, str) else "")
        return dataset, self.choices.get("model", "?") + (f" {network}" if isinstance(network, str) else "")

    @property
    def seed(self) -> Any:
        return self.result.get("seed", self.value("seed"))

    @property
    def accuracy(self) -> float | None:
        """On the test images, 0..1."""
        return self.number("test", "accuracy")

    @property
    def reason(self) -> str:
        return str(self.result.get("reason") or "")

    @property
    def command(self) -> str:
        """What to type to do this run, or to go on with it."""
        place = self.result.get("config_dir")
        options = ["--config-dir", str(place)] if place else []
        return shlex.join(["python", "-m", "diffq_exp.train", *options, *self.overrides])

    def size(self, kind: str) -> float | None:
        """MB. kind: "file", "true" (the paper's formula), "float32"."""
        return self.number("size_mb", kind)

    def number(self, group: str, name: str) -> float | None:
        value = _mapping(self.result.get(group)).get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return None
        return float(value)

    @cached_property
    def own(self) -> dict[str, Any]:
        """What was chosen for this run, flat: {"quantizer": "diffq", "bits": 3, "quantizer.extra_bits": 0}.

        A node's entry that only names a plain key is left out. Of a job without a result: what was typed.
        """
        if self.status == MISSING:
            return {
                key.lstrip("+"): read_value(value)
                for key, _, value in (one.partition("=") for one in self.overrides)
            }
        flat = {key: value for key, value in _flat(self.config) if not _refers(value)}
        return {**flat, **self.choices}

    def value(self, key: str) -> Any:
        """The value of a plain key, a dotted one or a choice ("bits", "quantizer.noise", "quantizer"), or None."""
        if key in self.own:
            return self.own[key]
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return self.config.get(_REFERENCE.fullmatch(node)[1]) if _refers(node) else node  # type: ignore[index]


@dataclass(frozen=True)
class Sweep:
    """What a sweep was to do: the command, the keys that tell its methods apart, and its jobs, done or not."""

    name: str
    command: str
    by: tuple[str, ...]
    jobs: tuple[Run, ...]  # all of status `missing`; `runs_of` puts found runs in their places


def find_runs(roots: Iterable[Path]) -> list[Run]:
    """Every run below these folders, by name; of a signature that is there twice the finished, then the newest.

    Raises: ValueError for a root that is no folder.
    """
    folders = {folder.resolve(): folder for root in roots for folder in _run_folders(root)}
    found: dict[str, Run] = {}
    for folder in folders.values():
        run = _read_run(folder)
        name = run.signature or str(folder)
        found[name] = max(found[name], run, key=_worth) if name in found else run
    return sorted((_with_source(run, found) for run in found.values()), key=lambda run: run.folder.as_posix())


def read_sweep(outputs: Path, name: str) -> Sweep:
    """The record of a sweep. Raises: ValueError that names the sweeps there are, or says what is wrong with it."""
    path = outputs / SWEEPS / f"{name}.json"
    if not path.is_file():
        raise ValueError(unknown("sweep", name, sorted(one.stem for one in path.parent.glob("*.json"))))
    record = read_json(path)
    try:
        jobs = tuple(Run(outputs / job["folder"], dict(job), MISSING) for job in record["jobs"])
        return Sweep(record["name"], record["command"], tuple(record.get("by") or ("quantizer",)), jobs)
    except (KeyError, TypeError) as fault:
        raise ValueError(f"{path}: not the record of a sweep ({fault})") from fault


def runs_of(sweep: Sweep, runs: Sequence[Run]) -> list[Run]:
    """The sweep's runs in its own order; a job without one stays, as `missing`."""
    found = {run.signature: run for run in runs}
    return [found.get(job.signature, job) for job in sweep.jobs]


def unknown(what: str, name: str, there_are: Sequence[str]) -> str:
    """One line about a name that is not there."""
    near = difflib.get_close_matches(name, there_are, n=1)
    if near:
        return f"no {what} {name!r}; did you mean {near[0]!r}?"
    return f"no {what} {name!r}; there are: {', '.join(there_are) or 'none'}"


def _run_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    for place, folders, files in os.walk(root):
        if RESULT in files:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _NOT_ENTERED)


def _read_run(folder: Path) -> Run:
    try:
        result = read_json(folder / RESULT)
    except (ValueError, OSError) as fault:
        return Run(folder, {"reason": " ".join(str(fault).split())}, UNREADABLE)
    if (odd := _odd(result)) is not None:
        return Run(folder, {"reason": f"{folder / RESULT}: {odd}"}, UNREADABLE)
    status = str(result.get("status"))
    return Run(folder, result, "killed" if status == "running" and not is_locked(folder) else status)


def _odd(result: Mapping[str, Any]) -> str | None:
    """What in a record is not of the kind that all readers take it for; None if nothing."""
    for key, kind in _KINDS.items():
        if result.get(key) is not None and not isinstance(result[key], kind):
            return f"{key} is {result[key]!r}"
    layers = (result.get("bits") or {}).get("layers")
    if layers is not None and not isinstance(layers, dict):
        return f"bits.layers is {layers!r}"
    return None


def _worth(run: Run) -> tuple[bool, float]:
    return run.status == "finished", (run.folder / RESULT).stat().st_mtime


def _with_source(run: Run, found: Mapping[str, Run]) -> Run:
    source = found.get(str(run.config.get("init_from")))
    return replace(run, source=source) if source is not None else run


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _refers(value: Any) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def read_value(text: str) -> Any:
    """A typed value: 3 and true as they are meant, else the text."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
