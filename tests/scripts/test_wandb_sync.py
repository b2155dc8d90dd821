"""scripts/wandb_sync.sh with a `wandb` that takes notes instead of uploading."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

SCRIPT = Path(__file__).parents[2] / "scripts" / "wandb_sync.sh"
# Leaves the file by which wandb marks what it uploaded, but for segments called bad; fails either way if asked to.
WANDB = """#!/usr/bin/env bash
printf '%s|' "$@" "${WANDB_MODE-unset}" >>"$CALLS"
echo >>"$CALLS"
case $2 in *-bad) ;; *) touch "$2/run.wandb.synced" ;; esac
exit "${WANDB_EXIT:-0}"
"""


class Place:
    """A folder with outputs/ in it, and the calls of `wandb` in `calls`."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls, self.bin = path, path / "calls", path / "bin"
        self.bin.mkdir()
        self.calls.touch()
        (path / "scripts").mkdir()  # a copy, since the script looks for .venv beside its folder
        self.script = shutil.copy(SCRIPT, path / "scripts")
        (self.bin / "wandb").write_text(WANDB)
        (self.bin / "wandb").chmod(0o755)

    def segment(self, run: str, name: str, synced: bool = False) -> Path:
        folder = self.path / run / "wandb" / name
        folder.mkdir(parents=True)
        (folder / "run.wandb").touch()
        if synced:
            (folder / "run.wandb.synced").touch()
        return folder

    def sync(self, *words: str, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        path = path or f"{self.bin}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CALLS": str(self.calls), "WANDB_MODE": "offline", **environment}
        return subprocess.run([self.script, *words], cwd=self.path, env=environment, capture_output=True, text=True)

    def uploaded(self) -> list[str]:
        """The folders handed to `wandb sync`, one call each, with the mode of the environment out of the way."""
        calls = [line.split("|") for line in self.calls.read_text().splitlines()]
        assert all(len(words) == 4 and words[0] == "sync" and words[2] == "unset" for words in calls)
        return [words[1] for words in calls]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "a b [x]*").mkdir()
    return Place(tmp_path / "a b [x]*")


EARLY, LATE = "offline-run-20260101_235959-r-1", "offline-run-20260102_000000-r-1"


def test_the_last_segment_of_each_run_and_report(place):
    for run in ("outputs/one", "outputs/two words", "outputs/report/sweep-1"):
        place.segment(run, LATE)
        place.segment(run, EARLY)
    place.segment("outputs/online", "run-20260102_000000-r-2")
    done = place.sync()
    assert (done.returncode, done.stderr) == (0, "")
    runs = ["outputs/one", "outputs/report/sweep-1", "outputs/two words"]
    assert place.uploaded() == [f"{run}/wandb/{LATE}" for run in runs]
    assert "uploaded: 3 of 3" in done.stdout
    again = place.sync()
    assert (again.returncode, again.stdout) == (0, "nothing to upload in outputs\n")
    assert len(place.uploaded()) == 3


def test_a_synced_last_segment_is_done_with_all_before(place):
    place.segment("outputs/one", EARLY)
    place.segment("outputs/one", LATE, synced=True)
    place.segment("outputs/two", EARLY, synced=True)
    place.segment("outputs/two", LATE)
    assert place.sync().returncode == 0
    assert place.uploaded() == [f"outputs/two/wandb/{LATE}"]


def test_it_goes_on_after_a_failure_and_names_it(place):
    bad = place.segment("outputs/a", "offline-run-20260101_000000-bad")
    place.segment("outputs/b", EARLY)
    done = place.sync()
    assert done.returncode == 1 and len(place.uploaded()) == 2
    assert "uploaded: 1 of 2" in done.stdout
    assert done.stderr == f"not uploaded: {bad.relative_to(place.path)}\n"


def test_what_wandb_exits_with_does_not_count(place):
    place.segment("outputs/a", EARLY)
    assert place.sync(WANDB_EXIT="1").returncode == 0


def test_a_run_still_at_work_is_left_for_later(place):
    segment = place.segment("outputs/a", EARLY)
    with FileLock(segment.parents[1] / ".lock"):
        done = place.sync()
    assert done.returncode == 0 and "still at work" in done.stdout and place.uploaded() == []
    assert place.sync().returncode == 0 and len(place.uploaded()) == 1


def test_what_restart_put_aside_stays(place):
    place.segment("outputs/a/.earlier", EARLY)
    done = place.sync()
    assert done.stdout == "nothing to upload in outputs\n" and place.uploaded() == []


def test_another_folder(place):
    place.segment("else where/a", EARLY)
    assert place.sync("else where").returncode == 0
    assert place.uploaded() == [f"else where/a/wandb/{EARLY}"]


@pytest.mark.parametrize("words", [[], ["nothing"], ["bin", "bin"]])
def test_a_wrong_call_is_told(place, words):
    done = place.sync(*words)
    assert done.returncode == 2 and done.stderr.startswith("wandb_sync: usage:") and done.stderr.count("\n") == 1


def test_no_wandb(place):
    place.segment("outputs/a", EARLY)
    for command in ("bash", "env", "dirname", "basename"):
        found = next(
            Path(part) / command for part in os.defpath.split(":") if part and (Path(part) / command).exists()
        )
        (place.bin / command).symlink_to(found)
    (place.bin / "wandb").unlink()
    done = place.sync(path=str(place.bin))
    assert done.returncode == 2 and done.stderr == "wandb_sync: there is no wandb on PATH\n"
