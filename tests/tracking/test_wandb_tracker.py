from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.wandb_fakes import read_segment, records
from helpers.wandb_runs import (  # noqa: F401
    HISTOGRAM,
    RUN,
    alone,
    epochs,
    helpers,
    row,
    segments,
    stored_in,
    wait_until,
    warnings_in,
)

from diffq_exp.tracking.segment import _WISHES, bytes_on_disk
from diffq_exp.tracking.wandb_tracker import NullTracker, WandbTracker, flat, resolve_mode

pytestmark = pytest.mark.usefixtures("alone")


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
    assert (histogram["_type"], histogram["values"]) == ("histogram", [1, 7])  # groups, of which layers have many
    assert histogram["bins"] == [2.0, 3.0, 4.0]
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
    tracker.finish({"bits": {"layers": {"a": 4.0}, "histogram": HISTOGRAM}}, None, 3)
    stored = stored_in(tmp_path / "run")
    assert stored.summary["bits/histogram"]["values"] == [1, 7]
    assert stored.exit_code == 3


@pytest.mark.parametrize("wanted", [False, True])
def test_system_metrics_by_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    monkeypatch.setitem(_WISHES, "x_stats_sampling_interval", 0.1)
    tracker = WandbTracker(system_metrics=wanted)
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    (segment,) = segments(tmp_path / "run")
    if wanted:
        wait_until(lambda: _has_stats(segment))
    tracker.finish({}, None, 0)
    assert _has_stats(segment) == wanted


def _has_stats(segment: Path) -> bool:
    return any(record.WhichOneof("record_type") == "stats" for record in records(segment))


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
from diffq_exp.tracking.wandb_tracker import WandbTracker
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
        wait_until(lambda: len(killed_rows(killed)) == 1)  # on disk within seconds, before any end
        child.kill()

    tracker = WandbTracker()
    tracker.start(folder, RUN, "name", {}, killed_rows(killed))
    tracker.log({"epoch": 2})
    ours = Path(tracker.url_or_dir or "")
    wait_until(lambda: bytes_on_disk(ours) >= bytes_on_disk(killed))
    tracker.log({"epoch": 3})
    assert not killed.exists()
    tracker.finish({}, None, 0)
    assert epochs(stored_in(folder)) == [1, 2, 3]


def killed_rows(segment: Path) -> list[dict[str, Any]]:
    if next(segment.glob("*.wandb")).stat().st_size < 1000:
        return []
    return [{"epoch": item["epoch"], "note": item["note"]} for item in read_segment(segment).rows]


def test_segments_of_other_runs_stay(tmp_path: Path) -> None:
    other = tmp_path / "run" / "wandb" / f"offline-run-20260101_000000-x-{RUN}"
    other.mkdir(parents=True)
    old = other.with_name(f"offline-run-20260101_000000-{RUN}")
    old.mkdir()
    (old / "run.wandb").write_bytes(bytes(2**20))
    tracker = WandbTracker()
    tracker.start(tmp_path / "run", RUN, "name", {}, [])
    tracker.log(row(1))
    assert old.exists()  # it has more than what is on disk of its successor
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
    code = "import sys; from pathlib import Path; from diffq_exp.tracking.wandb_tracker import WandbTracker as W;"
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
