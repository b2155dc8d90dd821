"""restart=true: the run that was there before is lost only when another has finished."""

import shutil

import pytest
from helpers.run_configs import TINY, do, timeless
from helpers.run_folders import content, never, payloads

from diffq_exp.results.run_files import EARLIER
from diffq_exp.runs import run as run_module
from diffq_exp.runs import session
from diffq_exp.runs.run_folder import RunFolder
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.stopping import Diverged
from diffq_exp.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("same_commit")


@pytest.fixture
def root(finished, tmp_path):
    """Where a finished run is."""
    shutil.copytree(finished.folder.parent.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def folder(finished, root):
    return root / "outputs" / finished.folder.name


def restart(root):
    return do(*TINY, "restart=true", root=root)


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_it_is_done_again(root, folder, finished):
    (folder / "left.txt").write_text("of the run before")
    before = finished.result
    again = restart(root)
    assert again.folder == folder and (folder / "left.txt").exists() and not (folder / EARLIER).exists()
    assert again.result["run_id"] != before["run_id"] and again.result["test"] == before["test"]
    assert payloads(folder) == payloads(finished.folder)
    assert timeless(again.rows) == timeless(finished.rows) and len(again.rows) == 2


@pytest.mark.parametrize(
    ("place", "error", "code"),
    [
        ((session, "build_data"), OSError("gone"), 2),
        ((session, "build_optimizers"), ValueError("wrong"), 2),
        ((Trainer, "fit"), RuntimeError("broken"), 1),
        ((Classification, "loss"), ValueError("wrong"), 2),
    ],
)
def test_what_fails_before_it_has_trained_leaves_the_finished_run(place, error, code, root, folder, monkeypatch):
    before = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(*place, failing(error))
        outcome = restart(root)
    assert outcome.code == code and str(error) in outcome.text and "the earlier run is back" in outcome.lines[-1]
    after = content(folder)
    log = after.pop("train.log")
    assert log.startswith(before.pop("train.log")) and str(error) in log.decode()
    assert after == before and not (folder / EARLIER).exists()
    monkeypatch.setattr(Trainer, "fit", never)
    assert do(*TINY, root=root).code == 0


@pytest.mark.parametrize("written", [1, 2])
def test_a_record_that_cannot_be_written_leaves_the_finished_run(written, root, folder, monkeypatch):
    before, calls = content(folder), []

    def write_record(self, record):
        calls.append(record.status)
        if len(calls) >= written:
            raise OSError("No space left on device")

    monkeypatch.setattr(RunFolder, "write_record", write_record)
    outcome = restart(root)
    assert outcome.code == 2 and "No space left" in outcome.text
    after = content(folder)
    assert {**after, "train.log": b""} == {**before, "train.log": b""} and not (folder / EARLIER).exists()


def test_what_fails_after_a_checkpoint_goes_on_and_the_finished_run_waits(root, folder, monkeypatch):
    model = (folder / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(session, "evaluate", failing(OSError("gone")))
        assert restart(root).code == 2
    assert (folder / EARLIER / "model.safetensors").read_bytes() == model and (folder / "checkpoint.pt").exists()
    assert do(*TINY, root=root).code == 0 and not (folder / EARLIER).exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [(Diverged(1, 2), 1), (run_module.RankLost("another one"), 1), (run_module.Interrupted(), 130)],
)
def test_what_was_stopped_otherwise_is_not_taken_back(error, code, root, folder, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", failing(error))
    assert restart(root).code == code
    assert (folder / EARLIER / "model.safetensors").exists() and not (folder / "model.safetensors").exists()


def test_a_failed_run_is_not_brought_back_in_place_of_a_failed_one(tmp_path, monkeypatch):
    for reason in ("first", "second"):
        monkeypatch.setattr(session, "build_data", failing(ValueError(reason)))
        outcome = restart(tmp_path)
    assert outcome.result["reason"] == "second" and "back" not in outcome.text


@pytest.mark.parametrize("place", [(session, "build_data"), (RunFolder, "write_config")])
def test_torchrun_starts_it_again_before_the_finished_run_is_back(place, root, folder, monkeypatch):
    """Else the second start would find the run finished."""
    monkeypatch.setattr(*place, failing(ValueError("wrong")))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    for count, back in (("0", False), ("1", True)):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
        outcome = restart(root)
        assert outcome.code == 2 and (folder / "model.safetensors").exists() == back
    assert "restart=true is not followed: TORCHELASTIC_RESTART_COUNT=1" in outcome.text


def test_in_a_job_that_was_queued_again_it_is_told_that_nothing_begins_anew(root, folder, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", never)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = content(folder)
    outcome = restart(root)
    assert outcome.code == 0 and content(folder) == before
    assert sum("restart=true is not followed: SLURM_RESTART_COUNT=1" in line for line in outcome.lines) == 1
    assert "not followed" not in do(*TINY, root=root).text


def test_a_float32_network_that_fails_leaves_the_finished_run(tmp_path, monkeypatch):
    words = (*TINY, "quantizer=ptq")
    outcome = do(*words, root=tmp_path)
    (float32,) = {*outcome.folder.parent.iterdir()} - {outcome.folder}
    shutil.rmtree(float32)
    before = content(outcome.folder)
    monkeypatch.setattr(session, "build_data", failing(ValueError("wrong")))
    again = do(*words, "restart=true", root=tmp_path)
    assert again.code == 1 and "did not finish" in again.lines[-1] and content(outcome.folder) == before
