from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training.wandb_fakes import Server, Stored, mute_server, read_segment

from diffq_exp.training.tracking import NullTracker, WandbTracker, flat, resolve_mode

RUN = "abc123"


def row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train": {"loss": 1.0 / epoch, "accuracy": 0.5},
        "val": {"accuracy": None},
        "size_mb": {"soft": 0.25, "true": 0.125},
        "bits": {"mean": 3.0, "layers": {"conv1.weight": 2.0, "head.weight": 4.0}},
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
    return [sys.exit, sys.excepthook, sys.stdin, signal.getsignal(signal.SIGINT), environment]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record for record in caplog.records if record.name.startswith("diffq_exp")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
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


def go_online(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_API_KEY", os.urandom(20).hex())


def test_offline_run_reads_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    model = folder / "model.safetensors"
    tracker = WandbTracker(project="p", group="g", tags=["a", "b"])
    tracker.start(folder, RUN, "name", {"lr": 0.1, "model": {"width": 8}}, [])
    for epoch in (1, 2):
        tracker.log(row(epoch))
    model.write_bytes(b"weights")
    result = {"status": "finished", "test": {"accuracy": 0.9, "loss": None}, "size_mb": {"file": 0.1}}
    tracker.finish(result, model, 0)

    stored = stored_in(folder)
    run = stored.run
    assert (run.run_id, run.project, run.run_group, run.job_type) == (RUN, "p", "g", "train")
    assert (run.display_name, list(run.tags)) == ("name", ["a", "b"])
    assert stored.config["lr"] == 0.1
    assert stored.config["model"] == {"width": 8}
    assert epochs(stored) == [1, 2]
    assert stored.rows[1]["train/loss"] == 0.5
    assert stored.rows[1]["size_mb/true"] == 0.125
    assert stored.rows[1]["bits/layers/conv1.weight"] == 2.0
    assert "val/accuracy" not in stored.rows[1]
    histogram = stored.rows[1]["bits/histogram"]
    assert (histogram["_type"], sum(histogram["values"])) == ("histogram", 2)
    assert (histogram["bins"][0], histogram["bins"][-1]) == (2.0, 4.0)
    assert stored.summary["test/accuracy"] == 0.9
    assert stored.summary["size_mb/file"] == 0.1
    assert stored.summary["status"] == "finished"
    assert "test/loss" not in stored.summary
    (artifact,) = stored.artifacts
    (content,) = artifact.manifest.contents
    assert (artifact.type, artifact.name) == ("model", f"model-{RUN}")
    assert (content.path, content.size, Path(content.local_path)) == (model.name, 7, model)
    assert stored.exit_code == 0
    assert tracker.url_or_dir == str(stored.segment)
    assert warnings_in(caplog) == []


def test_summary_holds_histogram_of_a_run_without_epochs(tmp_path: Path) -> None:
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "ptq", {}, [])
    tracker.finish({"bits": {"layers": {"a": 4.0, "b": 4.0}}}, None, 3)
    stored = stored_in(tmp_path / "run")
    assert sum(stored.summary["bits/histogram"]["values"]) == 2
    assert stored.exit_code == 3


def test_nothing_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.log(row(1))
    print("ours")
    tracker.finish({}, tmp_path / "missing.safetensors", 0)
    assert capfd.readouterr() == ("ours\n", "")


def test_resume_leaves_one_segment_with_all_rows(tmp_path: Path) -> None:
    for first in (1, 3):
        tracker = WandbTracker()
        tracker.start(tmp_path / "run", RUN, "name", {}, [row(epoch) for epoch in range(1, first)])
        tracker.log(row(first))
        tracker.log(row(first + 1))
        tracker.finish({}, None, 0)
    stored = stored_in(tmp_path / "run")
    assert epochs(stored) == [1, 2, 3, 4]
    assert stored.run.run_id == RUN


KILLED = """
import sys, time
from pathlib import Path
from diffq_exp.training.tracking import WandbTracker
tracker = WandbTracker()
tracker.start(Path(sys.argv[1]), sys.argv[2], "name", {}, [])
tracker.log({"epoch": 1, "note": "n" * 20000})
print("logged", flush=True)
time.sleep(60)
"""


def test_run_goes_on_after_sigkill(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    source = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), RUN],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"logged\n"
        (killed,) = segments(folder)
        wait_until(lambda: len(killed_rows(killed)) == 1)  # it reaches the disk within seconds, before any end
        child.kill()

    tracker = WandbTracker()
    tracker.start(folder, RUN, "name", {}, killed_rows(killed))
    tracker.log({"epoch": 2})
    assert killed.exists()  # ours is not on disk yet
    time.sleep(1.5)
    tracker.log({"epoch": 3})
    assert not killed.exists()
    tracker.finish({}, None, 0)
    assert epochs(stored_in(folder)) == [1, 2, 3]


def killed_rows(segment: Path) -> list[dict[str, Any]]:
    if next(segment.glob("*.wandb")).stat().st_size < 1000:
        return []
    return [{"epoch": item["epoch"], "note": item["note"]} for item in read_segment(segment).rows]


def wait_until(true: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_segments_of_other_runs_stay(tmp_path: Path) -> None:
    other = tmp_path / "run" / "wandb" / f"offline-run-20260101_000000-x-{RUN}"
    other.mkdir(parents=True)
    old = other.with_name(f"offline-run-20260101_000000-{RUN}")
    old.mkdir()
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.finish({}, None, 0)
    assert other.exists()
    assert not old.exists()


@pytest.mark.parametrize("tracker", [WandbTracker(mode="disabled"), NullTracker()])
def test_disabled(tmp_path: Path, tracker: WandbTracker | NullTracker) -> None:
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.log(row(1))
    tracker.finish({}, None, 0)
    assert tracker.url_or_dir is None
    assert not (tmp_path / "run").exists()


def test_import_and_disabled_do_not_import_wandb() -> None:
    code = "import sys; from pathlib import Path; from diffq_exp.training.tracking import WandbTracker as W;"
    code += " w = W(mode='disabled'); w.start(Path('x'), 'i', 'n', {}, []); w.finish(None, None, 0);"
    code += " print([name for name in ('torch', 'hydra', 'omegaconf', 'wandb') if name in sys.modules])"
    source = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], env=source, text=True) == "[]\n"


@pytest.mark.parametrize(
    ("typed", "environment", "expected"),
    [
        (None, None, "offline"),
        (None, "", "offline"),
        (None, "online", "online"),
        (None, "disabled", "disabled"),
        (None, "dryrun", "offline"),
        (None, "nonsense", "offline"),
        ("online", "disabled", "online"),
        ("offline", "online", "offline"),
        ("disabled", "online", "disabled"),
    ],
)
def test_typed_mode_before_environment(typed: str | None, environment: str | None, expected: str) -> None:
    assert resolve_mode(typed, environment) == expected


def test_environment_disables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.finish({}, None, 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("key", "value"), [("mode", "on"), ("timeout_seconds", 0), ("timeout_seconds", -1)])
def test_wrong_argument_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"tracking.{key} is .*{value}"):
        WandbTracker(**{key: value})


def test_finish_without_start_and_twice(tmp_path: Path) -> None:
    tracker = WandbTracker()
    tracker.log(row(1))
    tracker.finish(None, None, 1)
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.finish(None, None, 1)
    tracker.finish(None, None, 0)
    tracker.log(row(1))
    assert stored_in(tmp_path / "run").exit_code == 1


def test_mute_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with mute_server() as url:
        go_online(monkeypatch, url)
        tracker = WandbTracker(mode="online", timeout_seconds=1.0)
        began = time.monotonic()
        tracker.start(tmp_path / "run", RUN, "name", {}, [row(1)])
        assert time.monotonic() - began < 6.0
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
        assert time.monotonic() - began < 8.0
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


def test_helper_killed_in_mid_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.log(row(1))
    (helper,) = helpers()
    helper.kill()
    for epoch in (2, 3):
        tracker.log(row(epoch))
    tracker.finish({"test": {"accuracy": 0.5}}, None, 0)
    stored = stored_in(tmp_path / "run")
    assert epochs(stored) == [1, 2, 3]
    assert "wandb sync" in warnings_in(caplog)[-1]


def test_row_that_wandb_refuses_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    for epoch in (1, 2, 3):
        tracker.log(row(epoch) if epoch == 3 else {"epoch": "not a step"})
    tracker.finish({}, None, 0)
    assert epochs(stored_in(tmp_path / "run")) == [3]
    assert len(warnings_in(caplog)) == 1


def test_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").write_text("a file")
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.log(row(1))
    tracker.finish({}, None, 0)
    assert tracker.url_or_dir is None
    assert len(warnings_in(caplog)) == 1


def test_flat() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 0.0}}, "e": None, "f": "x"}) == {"a/b": 1, "a/c/d": 0.0, "f": "x"}
