"""The folder of a run: one process at a time, one signature, and records that say how far it came."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from ..command.request import Request
from ..common.files import PARTIAL, locks_explained
from ..results.records import RunRecord, known_record, read_record, write_record
from ..results.run_files import ASIDE, EARLIER, LOCK, LOG, RESULT
from .earlier_run import bring_back, put_back

log = logging.getLogger("diffq_exp")


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
        self.check_owner()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with locks_explained(self.path):
                self._lock.acquire(timeout=-1 if self.wait else 0)
        except Timeout:
            raise FolderBusy(self.path) from None
        try:
            self.check_owner()
            self._tidy()
        except BaseException:
            self._lock.release()
            raise
        return self

    def check_owner(self) -> None:
        """Refuse a folder that is not this run's, before anything in it is touched. Raises: FolderError."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise FolderError(f"{self.path} is not a folder")
        held = self._held()
        if not held and not self._is_named_for_it() and any(map(_is_foreign, self.path.iterdir())):
            raise FolderError(f"{self.path} is no folder of a run, and not empty; choose another")
        if held not in ("", self.signature):
            raise FolderError(
                f"{self.path} holds the run {held}, this one is {self.signature}; choose another folder"
            )

    def _held(self) -> str:
        """The signature of the run in the folder, which may be on its way to or from .earlier/; "" without one."""
        try:
            places = [read_record(self.path / place) for place in (".", ASIDE, EARLIER)]
        except ValueError as error:  # of a damaged record
            if self._is_named_for_it():
                return ""
            raise FolderError(f"{error}; whose run it is cannot be told: choose another folder") from error
        return next((record.signature for record in places if record.signature), "")

    def _is_named_for_it(self) -> bool:
        return self.path.name.endswith(f"-{self.signature}")

    def _tidy(self) -> None:
        """Bring to order what a process left that was killed while it wrote, or while it set a run aside."""
        put_back(self.path)
        for partial in self.path.glob(f".*{PARTIAL}"):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def record(self) -> RunRecord:
        """The run's record, an empty one where it has none yet, or a damaged one."""
        return known_record(self.path)

    def write_record(self, record: RunRecord) -> None:
        write_record(self.path, replace(record, signature=self.signature))

    def bring_back(self) -> None:
        """Bring back the run that restart=true has set aside, if the new one has not trained."""
        if bring_back(self.path):
            log.warning(f"{self.path}: the earlier run is back in its place; what happened is in its {LOG}")

    def drop(self) -> None:
        """Delete what a run left that was refused before it began; an earlier one comes back, other files stay."""
        shutil.rmtree(self.path / ".hydra", ignore_errors=True)
        for name in (LOG, RESULT):
            (self.path / name).unlink(missing_ok=True)
        bring_back(self.path)
        with suppress(OSError):
            if not (self.path / RESULT).exists():
                (self.path / LOCK).unlink(missing_ok=True)
                self.path.rmdir()

    def write_config(self, cfg: DictConfig, request: Request) -> None:
        """Write .hydra/ as Hydra does: config.yaml, overrides.yaml and hydra.yaml."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        files = {"config": cfg, "overrides": OmegaConf.create(list(request.overrides))}
        if request.hydra is not None:
            files["hydra"] = OmegaConf.create({"hydra": request.hydra})
        for name, values in files.items():
            (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(values), encoding="utf-8")


def _is_foreign(item: Path) -> bool:
    """Whether a run leaves no such file before its first record."""
    return item.name not in (LOCK, LOG, ASIDE, EARLIER) and not (item.name[0] == "." and item.suffix == PARTIAL)


class FollowedFolder(RunFolder):
    """The folder of a run on the ranks that leave it to the first one: nothing is locked or written."""

    def __enter__(self) -> FollowedFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def write_record(self, record: RunRecord) -> None:
        pass

    def bring_back(self) -> None:
        pass

    def drop(self) -> None:
        pass

    def write_config(self, cfg: DictConfig, request: Request) -> None:
        pass


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
