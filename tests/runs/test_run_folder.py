"""A run's folder: one process at a time, freed by the death of its holder, and never anybody else's."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from diffq_exp.command.request import Request
from diffq_exp.common.files import read_json
from diffq_exp.results.records import RunRecord, status_of
from diffq_exp.results.run_files import is_locked
from diffq_exp.runs import run_folder
from diffq_exp.runs.run_folder import FolderError, RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from diffq_exp.results.records import RunRecord
from diffq_exp.runs.run_folder import RunFolder
with RunFolder(Path(sys.argv[1]), "aaaa") as folder:
    folder.write_record(RunRecord(status="running"))
    print("held", flush=True)
    time.sleep(60)
"""


def content(path: Path) -> dict[str, bytes | None]:
    """Every file under `path` with its bytes, every folder with None."""
    return {
        str(one.relative_to(path)): one.read_bytes() if one.is_file() else None for one in sorted(path.rglob("*"))
    }


@pytest.fixture
def folder(tmp_path):
    """A folder in which the run aaaa has been."""
    with RunFolder(tmp_path / "run", "aaaa") as held:
        held.write_record(RunRecord(status="running"))
        (held.path / "checkpoint.pt").write_bytes(b"weights")
    return tmp_path / "run"


def test_two_processes(tmp_path):
    """The second is refused and writes nothing; a SIGKILL of the first frees the folder."""
    path = tmp_path / "deep" / "run"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        before = content(path)
        assert is_locked(path)
        with pytest.raises(FolderError, match="another process") as caught, RunFolder(path, "aaaa"):
            pytest.fail("two processes in one folder")
        assert str(path) in str(caught.value)
        assert content(path) == before and is_locked(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        assert not is_locked(path)
        with RunFolder(path, "aaaa") as held:
            assert held.record().status == "running"
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()


def test_is_locked_for_the_length_of_the_with(tmp_path):
    path = tmp_path / "run"
    assert not is_locked(path) and not path.exists()
    with RunFolder(path, "aaaa"):
        assert is_locked(path)
    assert not is_locked(path)


def test_freed_by_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), RunFolder(tmp_path / "run", "aaaa"):
        raise ZeroDivisionError
    assert not is_locked(tmp_path / "run")


def test_the_same_run_enters_again(folder):
    with RunFolder(folder, "aaaa") as held:
        assert held.record() == RunRecord(status="running", signature="aaaa")
        assert (folder / "checkpoint.pt").read_bytes() == b"weights"


def test_another_run_is_refused_and_changes_nothing(folder):
    before = content(folder)
    with pytest.raises(FolderError) as caught, RunFolder(folder, "bbbb"):
        pytest.fail("entered the folder of another run")
    assert all(part in str(caught.value) for part in (str(folder), "aaaa", "bbbb"))
    assert content(folder) == before and not is_locked(folder)


def test_a_folder_that_is_no_runs_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = content(tmp_path)
    with pytest.raises(FolderError, match="not empty"), RunFolder(tmp_path, "aaaa"):
        pytest.fail("entered a folder of somebody's own")
    assert content(tmp_path) == before


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("text")
    with pytest.raises(FolderError, match="not a folder"), RunFolder(tmp_path / "run", "aaaa"):
        pytest.fail("entered a file")
    assert (tmp_path / "run").read_text() == "text"


def test_an_empty_folder_will_do(tmp_path):
    with RunFolder(tmp_path, "aaaa") as held:
        assert held.record() == RunRecord()


def test_a_damaged_result_does_not_keep_the_folder_locked(folder):
    (folder / "result.json").write_text("{")
    try:
        with RunFolder(folder, "aaaa"):
            pytest.fail("took a damaged result.json for this run's")
    except (ValueError, FolderError) as error:
        assert "result.json" in str(error)
        assert not is_locked(folder)


def test_results_carry_the_signature(folder):
    assert read_json(folder / "result.json") == {"status": "running", "signature": "aaaa"}


def test_a_folder_named_for_its_run_needs_no_record(tmp_path):
    """After a power loss it may be gone, or zeros."""
    path = tmp_path / "digits-net-diffq-aaaa"
    path.mkdir()
    (path / "checkpoint.pt").touch()
    for content in (None, b"", bytes(300), b"{"):
        if content is not None:
            (path / "result.json").write_bytes(content)
        with RunFolder(path, "aaaa") as held:
            assert held.record() == RunRecord()
        with pytest.raises(FolderError, match=r"not empty|whose run it is cannot be told"):
            RunFolder(path, "bbbb").check_owner()


def test_a_damaged_record_in_a_folder_of_another_name_is_told_in_a_line(folder):
    (folder / "result.json").write_bytes(bytes(300))
    with pytest.raises(FolderError, match="choose another folder") as caught, RunFolder(folder, "aaaa"):
        pass
    assert str(folder / "result.json") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("left", [".result.json.12.partial", ".lock", "train.log", ".earlier.partial/x"])
def test_what_a_kill_leaves_before_the_first_record_is_no_ones_else(left, tmp_path):
    (tmp_path / "run" / left).parent.mkdir(parents=True)
    (tmp_path / "run" / left).touch()
    with RunFolder(tmp_path / "run", "aaaa") as held:
        assert held.record() == RunRecord() and not list(held.path.glob(".*.partial"))


@pytest.mark.parametrize("error", [OSError(errno.EOPNOTSUPP, "Operation not supported"), NotImplementedError("x")])
def test_a_file_system_without_locks_is_said(error, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(run_folder.FileLock, "acquire", refuse)
    with pytest.raises(OSError, match="its file system has no locks") as caught, RunFolder(tmp_path / "r", "aaaa"):
        pass
    assert str(tmp_path / "r") in str(caught.value) and "another file system" in str(caught.value)
    (tmp_path / ".lock").touch()
    assert not is_locked(tmp_path)


def test_another_error_of_a_lock_stays_as_it_is(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(run_folder.FileLock, "acquire", refuse)
    with pytest.raises(PermissionError), RunFolder(tmp_path / "run", "aaaa"):
        pass


def test_a_lock_file_alone_makes_no_folder_of_a_run(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / "precious.txt").write_text("kept")
    with pytest.raises(FolderError, match="not empty"), RunFolder(tmp_path, "aaaa"):
        pass
    assert (tmp_path / "precious.txt").read_text() == "kept"


def test_what_a_killed_write_left_is_cleared_away(folder):
    (folder / ".checkpoint.pt.123.partial").write_text("half")
    with RunFolder(folder, "aaaa"):
        assert not list(folder.glob("*.partial")) and not list(folder.glob(".*.partial"))


def test_running_with_a_free_lock_was_killed(folder):
    assert status_of(folder) == "killed"
    with RunFolder(folder, "aaaa"):
        assert status_of(folder) == "running"


def test_the_config_is_left_as_hydra_leaves_it(folder):
    cfg = OmegaConf.create({"lr": 0.1, "model": {"_target_": "x"}})
    with RunFolder(folder, "aaaa") as held:
        held.write_config(cfg, Request({}, ["lr=0.1"]))
    assert OmegaConf.load(folder / ".hydra" / "config.yaml") == cfg
    assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == ["lr=0.1"]
