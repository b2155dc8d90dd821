"""The record of a run, result.json: the one definition of its entries, for all who write or read it.

Statuses in a file: running, finished, diverged, interrupted, failed, killed. A record is written when a run begins
and again when it ends, so `running` in a folder without a lock means that the process was killed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..common.files import read_json, read_values, write_json
from .headline import Headline, is_number
from .run_files import RESULT, is_locked

STATUSES = ("running", "finished", "diverged", "interrupted", "failed", "killed")
SIGNATURE = re.compile("[0-9a-f]{8,64}")  # another is no run's
_MOST = 2.0**65  # of a whole number: a seed may have 64 bits


@dataclass(frozen=True)
class RunRecord:
    """A run's record. An entry that the run has not reached is None or empty, and is left out of the file.

    signature, seed, choices, overrides, config_dir, config: the task of the run (command/signature.py).
    device, git_commit, git_dirty, versions, hardware: its machine and packages (runs/machine.py).
    data: {"name", the number of examples of "train", "val", "test", facts such as "classes", and "digest": {part:
        what its examples are}}; known from the beginning of a run.
    test, val: {score: value} of the stored network; test also has `float32_<headline>` of the trained weights.
    size_mb: {"file", "packed", "true", "float32", "soft", "measure": the name of the size that is in "soft"}.
    bits: {"mean", "min", "max", "layers", "zero_rows": {layer: [rows (output channels) that are all zero, rows]}}.
    checksum: of the file of the stored network (results/intact.py).
    target_mb, target_met: what `target_mb` or `target_ratio` asked for, and whether the file has at most that.
    epoch, step, reason: where a run diverged, and why it did not finish. seconds: of all its processes; those
        of a killed one up to its last checkpoint, once the run has gone on from there.
    """

    status: str = ""
    signature: str = ""
    run_id: str | None = None
    seed: int | None = None
    choices: Mapping[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    headline: Headline | None = None
    test: Mapping[str, float | None] = field(default_factory=dict)
    val: Mapping[str, float | None] = field(default_factory=dict)
    size_mb: Mapping[str, Any] = field(default_factory=dict)
    bits: Mapping[str, Any] = field(default_factory=dict)
    checksum: str | None = None
    target_mb: float | None = None
    target_met: bool | None = None
    reason: str | None = None
    epoch: float | None = None
    step: float | None = None
    seconds: float | None = None
    ended: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunRecord:
        """Raises: ValueError with the name of an entry that is not of its kind. Unknown entries are left out."""
        known = {name: values[name] for name in _kinds() if values.get(name) is not None}
        for name, kinds in _kinds().items():
            if name != "headline" and name in known and not _is_of(known[name], kinds):
                raise ValueError(f"{name} is {known[name]!r:.80}")
        for name, value, is_right in _inner(known):
            if not is_right:
                raise ValueError(f"{name:.80} is {value!r:.80}")
        if "headline" in known:
            known["headline"] = Headline.from_json(known["headline"])
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        if self.headline is not None:
            values["headline"] = self.headline.to_json()
        return {name: value for name, value in values.items() if value is not None and value not in ("", {}, [])}

    @property
    def compared_by(self) -> Headline:
        """The headline; a record without one is of a run that is compared by accuracy."""
        classes = self.number("data", "classes")
        return self.headline or Headline(chance=1 / classes if classes and classes >= 1 else None)

    @property
    def score(self) -> float | None:
        """The value of the headline on the test part."""
        return self.number("test", self.compared_by.name)

    def number(self, group: str, name: str) -> float | None:
        """A finite number, number("test", "accuracy") say; None where there is none."""
        value = getattr(self, group).get(name)
        return float(value) if is_number(value) else None


@cache
def _kinds() -> dict[str, tuple[type, ...]]:
    """The classes that each entry of a record may have in JSON, from the annotations of RunRecord."""
    return {name: _classes(hint) for name, hint in get_type_hints(RunRecord).items()}


def _classes(hint: object) -> tuple[type, ...]:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes = tuple(get_origin(part) or part for part in parts)
    return (*classes, int) if float in classes else classes


def _is_of(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, (int, float)):
        return type(value) in kinds and (isinstance(value, bool) or is_number(value, -_MOST, _MOST))
    return isinstance(value, kinds)


def _inner(known: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """(name, value, whether it is of its kind) of the values inside the entries that a report relies on."""
    for group, label in known.get("choices", {}).items():
        yield f"choices.{group}", label, isinstance(label, str)
    for name, is_right in (("layers", is_number), ("zero_rows", _is_pair)):
        of_layers = known.get("bits", {}).get(name) or {}
        yield f"bits.{name}", of_layers, isinstance(of_layers, dict) and all(map(is_right, of_layers.values()))


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(is_number(item, 0) for item in value)


def read_record(folder: Path) -> RunRecord:
    """The record in a run's folder as it was written, an empty one where there is none.

    Raises: ValueError with the path of a record that is damaged; OSError.
    """
    path = folder / RESULT
    values = read_json(path)
    try:
        return RunRecord.from_json(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def known_record(folder: Path) -> RunRecord:
    """The record in a run's folder; an empty one also where it is damaged. Raises: OSError."""
    try:
        return read_record(folder)
    except ValueError:
        return RunRecord()


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: a result.json of somebody else's has no signature and status of ours.

    Raises: ValueError with the path of a result.json that is not JSON, which may have been a run's; OSError.
    """
    values = read_values(folder / RESULT)
    return (
        isinstance(values, dict)
        and SIGNATURE.fullmatch(str(values.get("signature"))) is not None
        and values.get("status") in STATUSES
    )


def write_record(folder: Path, record: RunRecord) -> None:
    write_json(folder / RESULT, record.to_json())


def status_of(folder: Path, record: RunRecord | None = None) -> str:
    """The status of a run, "" without a record: `killed` where it says running and no process has the lock.

    record: the record in the folder, if it was read already.
    """
    status = (read_record(folder) if record is None else record).status
    return "killed" if status == "running" and not is_locked(folder) else status
