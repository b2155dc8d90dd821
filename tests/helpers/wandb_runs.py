"""What the tests of tracking share: a row, what stands on disk, and that all else is left alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.wandb_fakes import Stored, read_segment

RUN = "abc123"
HISTOGRAM = {"edges": [2.0, 3.0, 4.0], "counts": [1, 7]}  # of groups


def row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train": {"loss": 1.0 / epoch, "accuracy": 0.5},
        "val": {"accuracy": None},
        "size_mb": {"soft": 0.25, "true": 0.125},
        "bits": {"mean": 3.0, "layers": {"conv1.weight": 2.0, "head.weight": 4.0}, "histogram": HISTOGRAM},
    }


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("*run-*"))


def stored_in(folder: Path) -> Stored:
    (segment,) = segments(folder)
    return read_segment(segment)


def epochs(stored: Stored) -> list[int]:
    assert [item["epoch"] for item in stored.rows] == [item["_step"] for item in stored.rows]
    return [item["epoch"] for item in stored.rows]


def helpers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("wandb-core")]


def process_state() -> list[Any]:
    by_tests = {"WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY", "PYTEST_CURRENT_TEST"}
    environment = {key: value for key, value in os.environ.items() if key not in by_tests}
    log_files = [handler for handler in logging.getLogger("wandb").handlers if hasattr(handler, "baseFilename")]
    return [sys.exit, sys.excepthook, sys.stdin, signal.getsignal(signal.SIGINT), environment, log_files]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("diffq_exp")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No W&B of whoever runs the tests; nothing left in the home or working folder, nor of the helper."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("home", "cwd"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.chdir(tmp_path / "cwd")
    before = process_state()
    yield
    assert process_state() == before
    assert helpers() == []
    assert [path for name in ("home", "cwd") for path in (tmp_path / name).rglob("*")] == []


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
