"""The runs below a folder as objects; read without torch.

A run keeps its record as it was read and looks everything else up in it. Hidden folders, those of W&B, earlier
reports and folders inside a run's folder are not entered: 1,000 runs are read in less than half a second.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .headline import Headline
from .records import SIGNATURE, RunRecord, read_record, status_of
from .renamed import new_name, with_targets
from .run_files import RESULT

MISSING = "missing"  # status of a job that was planned and left no result
UNREADABLE = "unreadable"
_NOT_ENTERED = ("wandb", "report")
_PLACES = ("dataset.root", "dataset.path", "dataset.name", "dataset.subset")  # which data a choice stands for
_REFERENCE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Run:
    """One run. `status`: that of its record, or killed, missing, unreadable. `source`: the run it began from."""

    folder: Path
    record: RunRecord = field(repr=False)
    status: str
    source: Run | None = field(default=None, repr=False)

    @property
    def signature(self) -> str:
        return self.record.signature

    @cached_property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = with_targets(self.record.config, new_name)
        return config

    @property
    def choices(self) -> Mapping[str, str]:
        return self.record.choices

    @property
    def overrides(self) -> list[str]:
        return [str(override) for override in self.record.overrides]

    @property
    def problem(self) -> tuple[str, str, tuple[str, str, bool]]:
        """(dataset, model, (name, unit, direction) of the headline): runs of different problems are not compared.

        dataset and model are the choices, with the folder or the network where a choice stands for many.
        """
        places = [*_PLACES, *(["dataset.train"] if self.choices.get("dataset") == "webdataset" else [])]
        paths = [value for key in places if isinstance(value := self.value(key), str)]
        network = self.value("model.name")
        dataset = " ".join([self.choices.get("dataset", "?"), *(Path(path).name for path in paths)])
        model = self.choices.get("model", "?") + (f" {network}" if isinstance(network, str) else "")
        return dataset, model, (self.headline.name, self.headline.unit, self.headline.higher_is_better)

    @cached_property
    def headline(self) -> Headline:
        return self.record.compared_by

    @property
    def score(self) -> float | None:
        """The value of the headline on the test part."""
        return self.record.score

    @property
    def seed(self) -> Any:
        return self.value("seed") if self.record.seed is None else self.record.seed

    @property
    def reason(self) -> str:
        return self.record.reason or ""

    @property
    def command(self) -> str:
        """What to type to do this run, or to go on with it."""
        place = self.record.config_dir
        options = ["--config-dir", place] if place else []
        return shlex.join(["python", "-m", "diffq_exp.train", *options, *self.overrides])

    def size(self, kind: str) -> float | None:
        """MB. kind: "file", "true" (the paper's formula), "float32"."""
        return self.record.number("size_mb", kind)

    @cached_property
    def own(self) -> dict[str, Any]:
        """What was chosen for this run, flat: {"quantizer": "diffq", "bits": 3, "quantizer.extra_bits": 0}.

        A node's entry that only names a plain key is left out. Of a job without a record: its overrides.
        """
        if self.status == MISSING:
            return self._typed
        flat = {key: value for key, value in _flat(self.config) if not _refers(value)}
        return {**flat, **self.choices}

    @property
    def _typed(self) -> dict[str, Any]:
        """The overrides by key."""
        words = (override.partition("=") for override in self.overrides)
        return {key.lstrip("+"): read_value(value) for key, _, value in words}

    def value(self, key: str) -> Any:
        """The value of a plain key, a dotted one or a choice ("bits", "quantizer.noise", "quantizer"), or None."""
        if key in self.own:
            return self.own[key]
        if key == "experiment":
            return self._typed.get(key)
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return self.config.get(_REFERENCE.fullmatch(node)[1]) if _refers(node) else node  # type: ignore[index]


def find_runs(roots: Iterable[Path]) -> list[Run]:
    """Every run below these folders, by name; of two with the same signature the finished, usable, newer run.

    Raises: ValueError for a root that is no folder.
    """
    folders = {folder.resolve(): folder for root in roots for folder in _run_folders(root)}
    found: dict[str, Run] = {}
    for folder in folders.values():
        run = _read_run(folder)
        signed = SIGNATURE.fullmatch(run.signature)  # two damaged records may share what is no signature
        name = run.signature if signed else str(folder)
        found[name] = max(found[name], run, key=_worth) if name in found else run
    return sorted((_with_source(run, found) for run in found.values()), key=lambda run: run.folder.as_posix())


def _run_folders(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    for place, folders, files in os.walk(root):
        if RESULT in files or RESULT in folders:
            folders.clear()
            yield Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _NOT_ENTERED)


def _read_run(folder: Path) -> Run:
    try:
        record = read_record(folder)
        return Run(folder, record, status_of(folder, record) or "unknown")
    except (ValueError, OSError) as error:
        return Run(folder, RunRecord(reason=" ".join(str(error).split())), UNREADABLE)


def _worth(run: Run) -> tuple[bool, bool, float]:
    usable = run.score is not None and run.size("file") is not None
    return run.status == "finished", usable, (run.folder / RESULT).stat().st_mtime


def _with_source(run: Run, found: Mapping[str, Run]) -> Run:
    source = found.get(str(run.config.get("init_from")))
    return replace(run, source=source) if source is not None else run


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _refers(value: object) -> bool:
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def read_value(text: str) -> Any:
    """A typed value: 3 and true as they are meant, else the text."""
    if (lower := text.lower()) in ("true", "false"):
        return lower == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
