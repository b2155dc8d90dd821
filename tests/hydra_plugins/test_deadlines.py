"""A job that has no end is told to save, then killed; what became of it is recorded, and the sweep goes on."""

import json
import math
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from helpers.run_configs import TINY, listening
from helpers.sweep_processes import results, swept
from hydra.core.utils import JobStatus
from pebble import ProcessExpired

from diffq_exp.command.check import check
from diffq_exp.common.files import write_json
from diffq_exp.sweeps.progress import SweepDisplay
from hydra_plugins.diffq_exp_sweeps import deadlines
from hydra_plugins.diffq_exp_sweeps.process_launcher import ProcessLauncher, _name, _Waiting

REASON = "no end within hydra.launcher.timeout_minutes=2"


class Process:
    """A child that does not end by itself; `told`: what was done to it, and when."""

    def __init__(self, name, clock):
        self.name, self.clock, self.told = name, clock, []

    def terminate(self):
        self.told.append(("terminate", self.clock.now))

    def kill(self):
        self.told.append(("kill", self.clock.now))


@pytest.fixture
def clock(monkeypatch):
    """`now` is the time; `children` are the processes that live."""
    made = SimpleNamespace(now=1000.0, children=[])
    monkeypatch.setattr(deadlines, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(deadlines.multiprocessing, "active_children", lambda: made.children)
    return made


def test_a_process_is_told_to_end_and_then_killed(clock):
    late, early = Process("late", clock), Process("early", clock)
    watch, clock.children = deadlines.Deadlines(2), [late, early, Process("the server", clock)]
    watch.begin("late")
    with listening() as lines:
        for seconds in range(0, 200, 10):
            clock.now = 1000.0 + seconds
            if seconds == 100:
                watch.begin("early")
            watch.look()
    assert late.told[:2] == [("terminate", 1130.0), ("kill", 1190.0)] and early.told == []
    assert watch.reasons == {"late": REASON}
    assert lines == [f"late: {REASON}; it is told to save and to end"]


def test_without_a_limit_nothing_ends(clock):
    process = Process("long", clock)
    watch, clock.children = deadlines.Deadlines(None), [process]
    watch.begin("long")
    clock.now += 1e9
    watch.look()
    assert process.told == [] and watch.reasons == {}


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (job,) = check(["-m", "seed=0"]).jobs
    return job


def ended(job, future):
    """Let a job that was late end so; -> its record, what the launcher returned, the exit codes."""
    launcher, waiting = ProcessLauncher(timeout_minutes=2), _Waiting(0, list(job.overrides))
    launcher.setup(hydra_context=None, task_function=SimpleNamespace(codes=[]), config=None)
    launcher._returns, launcher._warned, launcher._display = {}, set(), SweepDisplay(1, 1)
    launcher._deadlines.reasons[_name(waiting)] = REASON
    with listening():
        assert launcher._end(future, waiting, job, stopping=False) == []
    return json.loads((job.folder / "result.json").read_text()), launcher._returns[0], launcher._codes


@pytest.mark.parametrize("status", ["interrupted", "diverged"])
def test_a_late_job_that_saved_says_why(job, status):
    job.folder.mkdir(parents=True)
    write_json(job.folder / "result.json", {"status": status, "signature": job.signature})
    future = Future()
    future.set_result((143, "", ""))
    record, returned, codes = ended(job, future)
    assert (record["status"], record.get("reason")) == (status, REASON if status == "interrupted" else None)
    assert codes == [1] and returned.status == JobStatus.COMPLETED and math.isnan(returned.return_value)


def test_a_late_job_that_was_killed_says_why(job):
    future = Future()
    future.set_exception(ProcessExpired("killed", code=-9))
    record, returned, codes = ended(job, future)
    assert (record["status"], record["reason"], codes) == ("killed", REASON, [1])
    assert returned.status == JobStatus.FAILED


@pytest.mark.parametrize("minutes", ["0", "-1", "soon"])
def test_a_limit_that_is_none_is_refused(minutes):
    (error,) = check(["-m", "seed=0", f"hydra.launcher.timeout_minutes={minutes}"]).errors
    assert error.startswith(f"hydra.launcher.timeout_minutes={minutes}: a number > 0 or null is allowed")


@pytest.mark.long
def test_a_job_that_hangs_does_not_hold_its_sweep(tmp_path):
    hangs = "import time\ndef net(days, **sizes):\n    time.sleep(10**5 * days)\n    return digits_cnn(**sizes)\n"
    (tmp_path / "no_ink").mkdir()
    (tmp_path / "no_ink" / "hangs.py").write_text(f"from diffq_exp.models import digits_cnn\n{hangs}")
    words = [*TINY, "quantizer=none", "model._target_=hangs.net", "+model.days=0,1", "hydra.launcher.n_jobs=2"]
    code, text = swept(tmp_path, *words, "hydra.launcher.timeout_minutes=1.5")
    reasons = {result["status"]: result.get("reason") for result in results(tmp_path).values()}
    assert code == 1 and reasons == {"finished": None, "killed": "no end within hydra.launcher.timeout_minutes=1.5"}
    assert text.splitlines()[-1].startswith("killed: ") and "no end within" in text.splitlines()[-1]
