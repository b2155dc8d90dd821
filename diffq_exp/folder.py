"""The folder of a run: one process at a time, one signature, and records that say how far it came."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from .results.records import METRICS, RESULT, read_json, write_json

LOCK = ".lock"
EARLIER = ".earlier"  # where restart=true puts what a run left, until it is done again
LEFT_BY_A_RUN = (RESULT, METRICS, "checkpoint.pt", "model.safetensors", "train.log", ".hydra", "wandb")


class FolderError(RuntimeError):
    """The folder is another run's, or another process works in it."""


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
            raise FolderError(f"{self.path}: another process is at work on this run") from None
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
        held = self.result().get("signature")
        if held is None and any(item.name not in (LOCK, EARLIER) for item in self.path.iterdir()):
            raise FolderError(f"{self.path} is no folder of a run, and not empty; choose another")
        if held not in (None, self.signature):
            raise FolderError(
                f"{self.path} holds the run {held}, this one is {self.signature}; choose another folder"
            )

    def __exit__(self, *exc: Any) -> None:
        self._lock.release()

    def result(self) -> dict[str, Any]:
        """The run's result.json, {} when it has none yet."""
        return read_json(self.path / RESULT)

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.path / RESULT, {**result, "signature": self.signature})

    def set_aside(self) -> None:
        """Move what an earlier run left into .earlier/, its result first; other files stay."""
        self.drop_earlier()
        (self.path / EARLIER).mkdir()
        for name in LEFT_BY_A_RUN:
            if (self.path / name).exists():
                (self.path / name).rename(self.path / EARLIER / name)

    def drop_earlier(self) -> None:
        """Delete what `set_aside` kept."""
        shutil.rmtree(self.path / EARLIER, ignore_errors=True)

    def write_config(self, cfg: DictConfig, asked: dict[str, Any]) -> None:
        """Leave .hydra/ as Hydra does: config.yaml, and what was asked ("hydra" and "overrides")."""
        place = self.path / ".hydra"
        place.mkdir(exist_ok=True)
        for name, values in {"config": cfg, **asked}.items():
            (place / f"{name}.yaml").write_text(OmegaConf.to_yaml(values))


def status_of(path: Path) -> str | None:
    """The status of a run's folder, None without one; `killed` where it says running and nobody holds the lock."""
    status = read_json(path / RESULT).get("status")
    return "killed" if status == "running" and not is_locked(path) else status


def is_locked(path: Path) -> bool:
    """Whether a process is at work in a run's folder; `running` in a result with a free lock means killed."""
    if not (path / LOCK).exists():
        return False
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
