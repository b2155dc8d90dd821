"""The folder of a run: one process at a time, one signature, and records that say how far it came."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from ..command.request import Request
from ..results.records import RunRecord, read_record, write_record
from ..results.run_files import EARLIER, LEFT_BY_A_RUN, LOCK, LOG, RESULT


class FolderError(RuntimeError):
    """The folder is another run's, or another process works in it."""


class FolderBusy(FolderError):
    """Another process is at work on the same run, in folder `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: another process is at work on this run"


class RunFolder:
    """A run's folder, locked from `__enter__` to `__exit__`; the system frees the lock when its holder dies.

    wait: wait for another process to finish, instead of refusing.
    """

    def __init__(self, path: Path, signature: str, wait: bool = False) -> None:
        self.path, self.signature, self.wait = path, signature, wait
        self._lock = FileLock(path / LOCK)

    def __enter__(self) -> RunFolder:
        if self.path.exists():
            self._check_owner()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=-1 if self.wait else 0)
        except Timeout:
            raise FolderBusy(self.path) from None
        try:
            self._check_owner()
            for partial in self.path.glob(".*.partial"):  # of a process killed while it wrote
                partial.unlink()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _check_owner(self) -> None:
        """Refuse a folder that is not this run's, before anything in it is touched."""
        if not self.path.is_dir():
            raise FolderError(f"{self.path} is not a folder")
        held = self.record().signature
        if not held and any(item.name not in (LOCK, EARLIER, LOG) for item in self.path.iterdir()):
            raise FolderError(f"{self.path} is no folder of a run, and not empty; choose another")
        if held not in ("", self.signature):
            raise FolderError(
                f"{self.path} holds the run {held}, this one is {self.signature}; choose another folder"
            )

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def record(self) -> RunRecord:
        """The run's record, an empty one where it has none yet."""
        return read_record(self.path)

    def write_record(self, record: RunRecord) -> None:
        write_record(self.path, replace(record, signature=self.signature))

    def set_aside(self) -> None:
        """Move what an earlier run left into .earlier/, its result first; other files stay."""
        self.drop_earlier()
        (self.path / EARLIER).mkdir()
        for name in LEFT_BY_A_RUN:
            if name == LOG and (self.path / LOG).exists():  # a job of a sweep has it open already
                shutil.copy2(self.path / LOG, self.path / EARLIER / LOG)
                os.truncate(self.path / LOG, 0)
            elif (self.path / name).exists():
                (self.path / name).rename(self.path / EARLIER / name)

    def drop(self) -> None:
        """Delete the folder of a run that was refused before it began, unless there is more in it than that."""
        shutil.rmtree(self.path / ".hydra", ignore_errors=True)
        for name in (LOG, RESULT, LOCK):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def drop_earlier(self) -> None:
        """Delete what `set_aside` kept."""
        shutil.rmtree(self.path / EARLIER, ignore_errors=True)

    def write_config(self, cfg: DictConfig, request: Request) -> None:
        """Write .hydra/ as Hydra does: config.yaml, overrides.yaml and hydra.yaml."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        files = {"config": cfg, "overrides": OmegaConf.create(list(request.overrides))}
        if request.hydra is not None:
            files["hydra"] = OmegaConf.create({"hydra": request.hydra})
        for name, values in files.items():
            (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(values), encoding="utf-8")


def record_death(path: Path, planned: RunRecord, reason: str) -> None:
    """Write `killed` and the reason into the record of a run whose process died, unless the run had ended before.

    A run that had saved stays `interrupted`. planned: the record of a run that died before it could write one.
    """
    with RunFolder(path, planned.signature) as held:
        record = held.record()
        if record.status in ("", "running"):
            record = record if record.status else planned
            held.write_record(replace(record, status="killed", reason=reason))
        elif record.status == "interrupted":
            held.write_record(replace(record, reason=reason))
