"""A sweep that is told to stop: its running jobs save, its exit code says so, and nothing goes on behind it."""

import os
import signal

import pytest
from helpers.run_configs import TINY
from helpers.sweep_processes import results, rows_by_run, statuses, sweep, swept, wait_until, written

NAMED = "hydra.sweep.subdir=run-${seed}"  # folders of the user's own
EPOCHS = 100  # that none is through before a signal comes
LONG = [*TINY, "quantizer=none", "seed=0,1,2", f"epochs={EPOCHS}", "hydra.launcher.n_jobs=2", NAMED]
NO_END = [*TINY, "quantizer=none", "seed=0,1", "epochs=100000", "hydra.launcher.n_jobs=2"]


@pytest.mark.long
def test_a_signal_is_told_to_the_jobs_which_save(tmp_path):
    with sweep(tmp_path, *NO_END) as started:
        wait_until(lambda: started.runs_with_rows(1))
        os.kill(started.process.pid, signal.SIGTERM)
        assert (started.end(), statuses(tmp_path)) == (143, ["interrupted", "interrupted"])
        assert "Traceback" not in started.text


@pytest.fixture(scope="module")
def stopped_twice(tmp_path_factory):
    """A sweep stopped by Ctrl-C, started again, stopped by SIGTERM, and started again: what it left each time."""
    folder, left = tmp_path_factory.mktemp("stopped"), []
    for number in (signal.SIGINT, signal.SIGTERM):
        before = max(map(len, rows_by_run(folder).values()), default=0)
        with sweep(folder, *LONG) as started:
            wait_until(lambda started=started, before=before: started.runs_with_rows(before + 2))
            if number == signal.SIGINT:
                os.killpg(started.process.pid, number)  # as a terminal does
            else:
                os.kill(started.process.pid, number)
            code = started.end()
            left.append((code, started.text, statuses(folder), rows_by_run(folder)))
    code, text = swept(folder, *LONG)
    left.append((code, text, statuses(folder), rows_by_run(folder)))
    return left


@pytest.mark.long
@pytest.mark.parametrize(("time", "code"), [(0, 130), (1, 143)])
def test_running_jobs_save_and_the_exit_code_names_the_signal(stopped_twice, time, code):
    got, text, found, _ = stopped_twice[time]
    assert (got, found) == (code, ["interrupted", "interrupted"])
    assert text.splitlines()[-1] == "stopped; the same command goes on with what is missing"
    assert "Traceback" not in text


@pytest.mark.long
def test_the_same_command_goes_on_where_the_runs_stopped(stopped_twice):
    code, text, found, rows = stopped_twice[2]
    assert sorted(rows) == ["run-0", "run-1", "run-2"]
    assert code == 0 and found == ["finished"] * 3 and "3 jobs, 0 done already" in text
    for *_, earlier in stopped_twice[:2]:
        for name, saved in earlier.items():
            assert (
                len(saved) < EPOCHS and rows[name][: len(saved)] == saved
            )  # their seconds too: they were not done again
    assert all(len(done) == EPOCHS for done in rows.values())


@pytest.mark.long
def test_a_signal_before_the_first_job_works_stops_it_too(tmp_path):
    """While the server of processes starts, which takes seconds, there is no process yet to tell."""
    with sweep(tmp_path, *NO_END) as started:
        wait_until(lambda: "2 jobs to do" in started.text)
        os.kill(started.process.pid, signal.SIGTERM)
        assert started.end() == 143
        assert set(statuses(tmp_path)) <= {"interrupted", "running"} and not written(tmp_path, "finished")


@pytest.mark.long
def test_a_second_signal_kills(tmp_path):
    with sweep(tmp_path, *NO_END) as started:
        wait_until(lambda: started.runs_with_rows(1))
        jobs = [started.process_of(tmp_path / "outputs" / name) for name in results(tmp_path)]
        for job in jobs:
            job.suspend()  # so that it cannot save
        for number in (signal.SIGINT, signal.SIGTERM):  # two of the same may come as one
            os.kill(started.process.pid, number)
        assert started.end() in (130, 143)


@pytest.mark.long
def test_ctrl_c_while_the_server_of_processes_imports_is_no_traceback(tmp_path):
    """It goes to all processes of the terminal, the server too, which would break off its imports."""
    with sweep(tmp_path, *NO_END) as started:
        wait_until(lambda: "0 done already" in started.text)
        os.killpg(started.process.pid, signal.SIGINT)
        assert started.end() == 130
        assert "Traceback" not in started.text and "gave up" not in started.text
