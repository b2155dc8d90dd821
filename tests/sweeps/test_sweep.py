"""What a sweep launches, how it ends, and its exit code, with a launcher that only writes down results."""

import json
import os
from pathlib import Path

import pytest
from helpers.run_configs import listening
from hydra.core.utils import JobReturn, JobStatus

from diffq_exp.command.check import check
from diffq_exp.common.files import write_json
from diffq_exp.results import publish
from diffq_exp.runs.job import JobScore
from diffq_exp.sweeps.sweep import Sweep, carry_out

REPORT = publish.report_sweep
SEEDS = ("finished", "diverged", "failed", "interrupted", "running", "missing")  # the status of each seed's run


def sweep_of(*words):
    plan = check(["-m", *words])
    assert not plan.errors
    return Sweep.of(plan.jobs, ["-m", *words])


def leave(job, status, **more):
    job.folder.mkdir(parents=True, exist_ok=True)
    if status == "finished":
        (job.folder / "model.safetensors").touch()
    write_json(job.folder / "result.json", {"status": status, "signature": job.signature, **more})


class Launcher:
    """Ends every job that it is given as `becomes` says, then raises `error`."""

    def __init__(self, sweep, becomes="finished", error=None):
        self.sweep, self.becomes, self.error = sweep, becomes, error
        self.launched, self.planned = None, {}

    def launch(self, job_overrides, initial_job_idx):
        self.launched = [job for words in job_overrides for job in self.sweep.jobs if list(job.overrides) == words]
        self.recorded = json.loads(Path(f"outputs/.sweeps/{self.sweep.name}.json").read_text())
        self.environment = {key: os.environ[key] for key in ("WANDB_RUN_GROUP", "WANDB_TAGS")}
        for job in self.launched:
            leave(job, self.becomes, reason="as it was told")
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """In a folder of its own, with no report but where a test wants one; the environment is put back."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_GROUP", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("diffq_exp.sweeps.sweep.report_sweep", lambda outputs, name: None)


def carried_out(sweep, launcher):
    with listening() as lines:
        code = carry_out(sweep, launcher)
    return code, lines


@pytest.fixture
def half_done():
    sweep = sweep_of("seed=range(6)")
    for job, status in zip(sweep.jobs, SEEDS, strict=True):
        if status != "missing":
            leave(job, status)
    return sweep


def test_what_is_finished_or_diverged_is_not_launched_again(half_done):
    launcher = Launcher(half_done)
    code, lines = carried_out(half_done, launcher)
    assert [SEEDS[job.cfg.seed] for job in launcher.launched] == ["failed", "interrupted", "running", "missing"]
    assert code == 1 and "6 jobs, 2 done already" in lines[0]
    assert "5 finished, 1 diverged" in "\n".join(lines) and "diverged: seed=1" in lines[-1]


def test_a_sweep_that_is_done_launches_nothing_and_reports(monkeypatch):
    reported = []
    monkeypatch.setattr(
        "diffq_exp.sweeps.sweep.report_sweep", lambda outputs, name: reported.append((outputs, name))
    )
    sweep = sweep_of("seed=0,1")
    for job in sweep.jobs:
        leave(job, "finished")
    launcher = Launcher(sweep)
    assert carried_out(sweep, launcher)[0] == 0
    assert launcher.launched is None and reported == [(Path("outputs"), sweep.name)]


def test_restart_launches_all():
    sweep = sweep_of("seed=0,1", "restart=true")
    for job in sweep.jobs:
        leave(job, "finished")
    launcher = Launcher(sweep)
    assert carried_out(sweep, launcher)[0] == 0
    assert launcher.launched == sweep.jobs


@pytest.mark.parametrize("restart", ["true", "false"])
@pytest.mark.parametrize("bad", [(JobStatus.COMPLETED, JobScore(0.5, 2)), (JobStatus.FAILED, OSError())])
def test_a_restart_that_fails_is_no_success_where_the_earlier_run_is_back(restart, bad):
    """A run that finished, and whose process then failed, is finished."""
    sweep = sweep_of("seed=0,1", f"restart={restart}")
    launcher = Launcher(sweep)
    launch = launcher.launch

    def launched(words, initial_job_idx):
        launch(words, initial_job_idx)
        for job in launcher.launched:
            leave(job, "finished")
        returned = [(JobStatus.COMPLETED, JobScore(0.5, 0)), bad]
        return [JobReturn(status=status, _return_value=value) for status, value in returned]

    launcher.launch = launched
    code, lines = carried_out(sweep, launcher)
    if restart == "false":
        assert code == 0 and "2 finished" in lines[-1]
    else:
        assert code == 1 and lines[-1].startswith("failed: seed=1 ") and "1 finished, 1 failed" in lines[-2]
        assert lines[-1].endswith(f": see {sweep.jobs[1].folder}/train.log")  # the record is the earlier run's


def test_a_sweep_in_a_job_that_was_queued_again_says_that_it_does_not_begin_anew(monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for restart, count in (("true", 1), ("false", 0)):
        sweep = sweep_of("seed=0", f"restart={restart}")
        _, lines = carried_out(sweep, Launcher(sweep))
        assert sum("restart=true is not followed: SLURM_RESTART_COUNT=1" in line for line in lines) == count


def test_another_run_in_a_jobs_folder_is_not_taken_for_its_own():
    sweep = sweep_of("seed=0", "hydra.sweep.subdir=mine")
    leave(sweep.jobs[0], "finished", signature="0123456789")
    launcher = Launcher(sweep)
    code, lines = carried_out(sweep, launcher)
    assert launcher.launched == sweep.jobs and code == 0 and "0 done already" in lines[0]


def test_every_failure_is_named_with_its_reason_at_the_end():
    sweep = sweep_of("seed=0,1,2")
    leave(sweep.jobs[1], "finished")
    code, lines = carried_out(sweep, Launcher(sweep, "failed"))
    assert code == 1
    assert [line.split(" (")[0] for line in lines[-2:]] == ["failed: seed=0", "failed: seed=2"]
    assert all(line.endswith("as it was told") and str(job.folder) in line
               for line, job in zip(lines[-2:], sweep.jobs[::2], strict=True))  # fmt: skip


def test_a_job_of_which_nothing_is_left_is_a_failure_too():
    sweep = sweep_of("seed=0")
    launcher = Launcher(sweep)
    launcher.launch = lambda job_overrides, initial_job_idx: None
    code, lines = carried_out(sweep, launcher)
    assert code == 1 and lines[-1].startswith("missing: seed=0")


def test_a_stopped_sweep_ends_with_the_signals_code_and_says_how_to_go_on():
    sweep = sweep_of("seed=0,1")
    code, lines = carried_out(sweep, Launcher(sweep, "interrupted", SystemExit(143)))
    assert code == 143 and "the same command goes on" in lines[-1]
    assert not any(line.startswith("interrupted") for line in lines)


def test_ctrl_c_in_a_large_sweep_ends_with_a_few_lines(monkeypatch):
    monkeypatch.setattr("diffq_exp.sweeps.sweep.report_sweep", REPORT)
    sweep = sweep_of("seed=range(40)")
    for job in sweep.jobs[:3]:
        leave(job, "finished")
    launcher = Launcher(sweep)
    launcher.launch = lambda *_args, **_more: exec("raise SystemExit(130)")
    code, lines = carried_out(sweep, launcher)
    assert code == 130 and len(lines) == 4 and not Path("outputs/report").exists()
    assert "3 finished" in lines[1] and "37 missing" in lines[1]
    assert lines[2] == f"python -m diffq_exp.report outputs --sweep {sweep.name} reports what is finished"


def test_a_launcher_that_gives_up_is_told_in_a_line():
    sweep = sweep_of("seed=0")
    code, lines = carried_out(sweep, Launcher(sweep, error=RuntimeError("no\nqueue")))
    assert code == 1 and "the launcher gave up: no queue" in lines


def test_a_report_that_breaks_does_not_change_the_exit_code(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no ink")

    monkeypatch.setattr("diffq_exp.sweeps.sweep.report_sweep", REPORT)
    monkeypatch.setattr(publish, "make_report", broken)
    sweep = sweep_of("seed=0")
    code, lines = carried_out(sweep, Launcher(sweep))
    assert code == 0 and "no report: RuntimeError: no ink" in lines


def test_a_result_that_cannot_be_read_is_named():
    sweep = sweep_of("seed=0,1")
    leave(sweep.jobs[0], "finished")
    sweep.jobs[1].folder.mkdir()
    (sweep.jobs[1].folder / "result.json").write_text("{")
    launcher = Launcher(sweep)
    launcher.launch = lambda job_overrides, initial_job_idx: None
    code, lines = carried_out(sweep, launcher)
    assert code == 1 and lines[-1].startswith("unreadable: seed=1") and "not JSON" in lines[-1]


def test_the_record_is_there_before_the_first_job():
    sweep = sweep_of("seed=0,1")
    launcher = Launcher(sweep)
    carried_out(sweep, launcher)
    assert launcher.recorded == {
        "name": sweep.name,
        "command": "python -m diffq_exp.train -m seed=0,1",
        "by": [],
        "jobs": [
            {"folder": job.folder.name, "signature": job.signature, "overrides": list(job.overrides)}
            for job in sweep.jobs
        ],
    }


def test_the_same_jobs_are_the_same_sweep_each_run_once():
    sweep, same = sweep_of("seed=0,1", "quantizer=qat", "penalty=1,2"), sweep_of("quantizer=qat", "seed=1,0")
    assert sweep.name == same.name and sweep_of("seed=0,2", "quantizer=qat").name != sweep.name
    assert len(sweep.jobs) == 2 and {job.signature for job in sweep.jobs} == {job.signature for job in same.jobs}


def test_runs_are_grouped_in_wandb_by_sweep_unless_the_user_says_otherwise(monkeypatch):
    sweep = sweep_of("experiment=digits", "seed=0")
    launcher = Launcher(sweep)
    carried_out(sweep, launcher)
    assert launcher.environment == {"WANDB_RUN_GROUP": sweep.name, "WANDB_TAGS": "digits"}
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    carried_out(sweep, again := Launcher(sweep_of("experiment=digits", "seed=0", "restart=true")))
    assert again.launched is None and os.environ["WANDB_RUN_GROUP"] == "mine"


def test_a_long_name_of_an_experiment_is_a_tag_and_a_group_that_wandb_takes():
    jobs = sweep_of("seed=0").jobs
    sweep = Sweep.of(jobs, ["-m", f"experiment={'long_' * 40}", "seed=0"])
    carried_out(sweep, launcher := Launcher(sweep))
    group, tag = launcher.environment["WANDB_RUN_GROUP"], launcher.environment["WANDB_TAGS"]
    assert len(sweep.name) > 200 and (len(group), len(tag)) == (128, 64) and tag.startswith("long_long_")


def test_a_disk_that_takes_no_record_is_one_line(monkeypatch):
    sweep = sweep_of("seed=0,1")

    def refuse(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffq_exp.sweeps.sweep.write_json", refuse)
    launcher = Launcher(sweep)
    code, lines = carried_out(sweep, launcher)
    assert code == 2 and launcher.launched is None
    assert lines[-1] == "hydra.sweep.dir=outputs: [Errno 28] No space left on device"


def test_a_reason_that_a_folder_could_not_take_is_told_all_the_same():
    sweep = sweep_of("seed=0")
    launcher = Launcher(sweep, becomes="killed")
    launcher.launch = lambda *_args, **_more: None
    launcher.reasons = {sweep.jobs[0].folder: "its process was killed by SIGKILL"}
    code, lines = carried_out(sweep, launcher)
    assert code == 1 and lines[-1].startswith("missing: seed=0") and lines[-1].endswith("killed by SIGKILL")
