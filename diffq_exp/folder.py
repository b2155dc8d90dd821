"""The folder of a run: one process at a time, one signature, and records that say how far it came."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from .results.records import RESULT, read_json, write_json

LOCK = ".lock"


class FolderError(RuntimeError):
    """The folder is another run's, or another process works in it."""


class RunFolder:
    """A run's folder, locked from `__enter__` to `__exit__`; the system frees the lock when its holder dies."""

    def __init__(self, path: Path, signature: str) -> None:
        self.path, self.signature = path, signature
        self._lock = FileLock(path / LOCK)

    def __enter__(self) -> RunFolder:
        existed = self.path.exists()
        if existed and not self.path.is_dir():
            raise FolderError(f"{self.path} is not a folder")
        if existed and not (self.path / LOCK).exists() and any(self.path.iterdir()):
            raise FolderError(f"{self.path} is no folder of a run, and not empty; choose another")
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FolderError(f"{self.path}: another process is at work on this run") from None
        try:
            self._check_owner()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _check_owner(self) -> None:
        held = self.result().get("signature", self.signature)
        if held != self.signature:
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

    def clear(self) -> None:
        """Throw everything away but the lock."""
        for item in self.path.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            elif item.name != LOCK:
                item.unlink()

    def write_config(self, cfg: DictConfig, asked: dict[str, Any]) -> None:
        """Leave .hydra/ as Hydra does: config.yaml, and what was asked ("hydra" and "overrides")."""
        place = self.path / ".hydra"
        place.mkdir(exist_ok=True)
        for name, values in {"config": cfg, **asked}.items():
            (place / f"{name}.yaml").write_text(OmegaConf.to_yaml(values))


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
