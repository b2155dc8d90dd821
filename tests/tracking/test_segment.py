from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from helpers.wandb_fakes import Server, mute_server
from helpers.wandb_runs import RUN, alone, epochs, row, stored_in, warnings_in  # noqa: F401

from diffq_exp.tracking.wandb_tracker import WandbTracker

pytestmark = pytest.mark.usefixtures("alone")


def go_online(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", os.urandom(20).hex())


def test_mute_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with mute_server() as url:
        go_online(monkeypatch, url)
        tracker = WandbTracker(mode="online", timeout_seconds=1.0)
        began = time.monotonic()
        tracker.start(tmp_path / "run", RUN, "name", {}, [row(1)])
        assert time.monotonic() - began < 40.0
        tracker.log(row(2))
        tracker.finish({"test": {"accuracy": 0.5}}, None, 0)
    stored = stored_in(tmp_path / "run")
    assert epochs(stored) == [1, 2]
    assert stored.segment.name.startswith("offline-run-")
    (warning,) = warnings_in(caplog)
    assert f"wandb sync {stored.segment}" in warning
    assert tracker.url_or_dir == str(stored.segment)


@pytest.mark.parametrize("tty", [False, True])
def test_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tty: bool
) -> None:
    with monkeypatch.context() as patch:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            patch.setattr(stream, "isatty", lambda: tty)
        tracker = WandbTracker(mode="online")
        tracker.start(tmp_path / "run", RUN, "name", {}, [])
        tracker.finish({}, None, 0)
    assert stored_in(tmp_path / "run").segment.name.startswith("offline-run-")
    (warning,) = warnings_in(caplog)
    assert "API key" in warning


@pytest.mark.long
def test_server_goes_mute_in_mid_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    with Server() as server:
        go_online(monkeypatch, server.url)
        tracker = WandbTracker(mode="online", timeout_seconds=2.0)
        tracker.start(tmp_path / "run", RUN, "name", {}, [])
        assert tracker.url_or_dir == f"{server.url}/someone/p/runs/{RUN}"
        tracker.log(row(1))
        server.mute.set()
        tracker.log(row(2))
        began = time.monotonic()
        tracker.finish({"test": {"accuracy": 0.5}}, model, 0)
        assert time.monotonic() - began < 40.0
    stored = stored_in(tmp_path / "run")
    assert epochs(stored) == [1, 2]
    assert stored.summary["test/accuracy"] == 0.5
    assert len(stored.artifacts) == 1
    (warning,) = warnings_in(caplog)
    assert f"wandb sync {stored.segment}" in warning


@pytest.mark.parametrize("last_step", [None, 2])
def test_online_sends_what_the_server_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, last_step: int | None
) -> None:
    with Server(last_step) as server:
        go_online(monkeypatch, server.url)
        tracker = WandbTracker(mode="online")
        tracker.start(tmp_path / "run", RUN, "name", {}, [row(1), row(2), row(3)])
        tracker.log(row(4))
        tracker.finish({}, None, 0)
    assert [item["_step"] for item in server.rows] == [1, 2, 3, 4][last_step or 0 :]
    assert warnings_in(caplog) == []
