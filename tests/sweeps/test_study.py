"""Studies by Optuna: what is searched, one study by several processes, kills, and trials that are stopped early."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from helpers import warm
from helpers.run_configs import TINY

from diffq_exp import search
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.sweep_records import read_sweep, runs_of
from diffq_exp.sweeps import one_run, study

WORDS = [*TINY, "quantizer=rate"]
OVER = "over={penalty: [1, 1000], quantizer.round_from: [0.2, 0.6]}"


class Fork:
    """What `one_run.start` gives: a run in a process that need not import torch."""

    def __init__(self, words, folder):
        self.program = warm.Program(["-m", "diffq_exp.train", *words], folder)

    def wait(self, timeout=None):
        done = self.program.end()
        print(done.stdout, done.stderr)
        return done.returncode

    def send_signal(self, number):
        signal.pidfd_send_signal(self.program.pid, number)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The overrides of the runs that are started, as forks, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    runs = []
    monkeypatch.setattr(one_run, "start", lambda words: runs.append(words) or Fork(words, tmp_path))
    return runs


def journal():
    (path,) = Path("outputs/.sweeps").glob("*.journal")
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.stem, storage=storage)


def states():
    return [trial.state.name for trial in journal().trials]


# ---- by the command ----------------------------------------------------------------------------------------------


def test_trials_are_ordinary_runs_and_a_study_goes_on(started, capsys):
    assert search.main([*WORDS, "trials=2", OVER]) == 0
    out = capsys.readouterr().out
    assert len(started) == 2 and states() == ["COMPLETE", "COMPLETE"]
    name = journal().study_name
    assert f"{name}: 2 trials" in out and f"optuna-dashboard outputs/.sweeps/{name}.journal" in out
    runs = runs_of(read_sweep(Path("outputs"), name), find_runs([Path("outputs")]))
    assert {run.status for run in runs} == {"finished"}
    command = shlex.split(read_sweep(Path("outputs"), name).command)
    assert command[:3] == ["python", "-m", "diffq_exp.search"] and {*WORDS, "trials=2", OVER} <= set(command)
    told = {(trial.values[0], trial.values[1]) for trial in journal().trials}
    assert told == {(run.record.val["accuracy"], run.record.size_mb["file"]) for run in runs}
    assert (Path("outputs/report") / name / "index.html").is_file()
    assert search.main([*WORDS, "trials=3", OVER]) == 0  # the same study, one more
    assert len(started) == 3 and len(journal().trials) == 3
    assert journal().metric_names[1] == "MB of the file"


def test_settings_that_repeat_stand_on_the_front_once(capsys):
    opened = optuna.create_study(directions=["maximize", "minimize"])
    ways = {"penalty": optuna.distributions.CategoricalDistribution([1, 5, 9])}
    for penalty, values in ((5, [0.9, 0.1]), (1, [0.95, 0.2]), (9, [0.8, 0.3]), (5, [0.9, 0.1])):
        opened.add_trial(optuna.create_trial(params={"penalty": penalty}, distributions=ways, values=values))
    assert study._show(opened, Path("outputs"), "mine") == 0
    _, first, _, *rows, last = capsys.readouterr().out.splitlines()
    assert first == "mine: 4 trials; on the front:" and last.startswith("optuna-dashboard outputs")
    assert [row.split()[0] + row.split()[-1] for row in rows] == ["0penalty=5", "1penalty=1"]


@pytest.mark.long
def test_a_trial_whose_process_was_killed_is_gone_on_with(started):
    assert search.main([*WORDS, "trials=1", OVER]) == 0
    trial = journal().ask(study.space_of(OVER.partition("=")[2]))  # and then the process is killed
    assert search.main([*WORDS, "trials=2", OVER]) == 0
    assert states() == ["COMPLETE", "COMPLETE"] and len(started) == 2
    assert set(study.words_of(trial.params)) <= set(started[1])


def test_a_trial_of_another_process_is_left_to_it(started, monkeypatch, capsys):
    monkeypatch.setattr(study, "is_locked", lambda folder: True)
    assert search.main([*WORDS, "trials=2", OVER]) == 1
    assert (
        not started and states() == ["FAIL", "FAIL"] and "another process is at work on" in capsys.readouterr().out
    )


@pytest.mark.long
def test_settings_that_do_not_go_together_fail_alone(started, capsys):
    over = "over={target_mb: [0.0001, 0.1]}"  # the first is below what no levels take
    assert search.main([*WORDS, "trials=4", over]) == 0
    assert {(trial.params["target_mb"], trial.state.name) for trial in journal().trials} == {
        (0.0001, "FAIL"),
        (0.1, "COMPLETE"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trials=2"], "over: a study needs trials=... and over=..."),
        ([OVER], "trials: a study needs trials=... and over=..."),
        (["trials=2", OVER, "max_drop=0.1"], "max_drop=0.1: is not for a study"),
        (["trials=0", OVER], "trials=0: a whole number >= 1 is allowed"),
        (["trials=2", OVER, "sampler=best"], "sampler=best: one of tpe, nsga2 is allowed"),
        (["trials=2", "over={penalti: [1, 2]}"], "penalti=1: unknown; the nearest is penalty"),
        (["trials=2", "over={bits: [2, 99]}"], "bits=99: a number >= 1 and <= 15 is allowed"),
        (["trials=2", "over={penalty: {low: 0, high: 1, log: true}}"], "low < high is allowed, and with log: true"),
        (["trials=2", "over={penalty: {low: 0}}"], "a range has low, high and log"),
        (["trials=2", "over={penalty: 3}"], "a list of values or a range is allowed"),
        (["trials=2", "over={penalty: []}"], "a list of values or a range is allowed"),
        (["trials=2", "over=[1, 2]"], "keys with their values are expected"),
        (["trials=2", "over={"], "over={: not understood"),
        (["trials=2", OVER, "--seeds", "3"], "--seeds: is not for a study"),
        (["trials=2", "over={bits: [2]}", "val_fraction=0"], "val_fraction=0: a search needs a validation part"),
    ],
)
def test_mistakes_are_one_line(words, message, started, capsys, tmp_path):
    assert search.main([*TINY, "quantizer=qat", *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and message in said[0]
    assert not list(tmp_path.iterdir())


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "diffq_exp.sweeps.study", None)
    monkeypatch.delattr("diffq_exp.sweeps.study")
    assert search.main(["trials=2", OVER]) == 2
    assert "[optuna]" in capsys.readouterr().err


# ---- what is searched --------------------------------------------------------------------------------------------


def test_values_and_ranges():
    space = study.space_of(
        "{bits: [2, 3], a.b: {low: 1, high: 5}, lr: {low: 1e-3, high: 1, log: true}, c: [x, [1, 2]]}"
    )
    assert space["bits"].choices == (2, 3) and space["c"].choices == ("x", "[1, 2]")
    assert (space["a.b"].low, space["a.b"].high) == (1, 5) and isinstance(space["a.b"].high, int)
    assert space["lr"].log and space["lr"].low == 1e-3
    assert study.words_of({"lr": 0.0123456, "a.b": 3}) == ["lr=0.01235", "a.b=3"]
    seen = [word for words in study.each_value(space) for word in words]
    assert {"bits=2", "bits=3", "a.b=1", "a.b=5", "lr=0.001", "lr=1.0", "c=x"} <= set(seen)


# ---- stopped early -----------------------------------------------------------------------------------------------


def written(folder, *rows, epochs=4):
    """A run's rows: (size, validation loss) of each epoch."""
    folder.mkdir()
    lines = [json.dumps({"size_mb": {"true": size}, "val": {"loss": loss}}) for size, loss in rows]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "result.json").write_text(json.dumps({"status": "running", "config": {"epochs": epochs}}))
    return folder


GOOD = [(1.0, 4.0), (0.8, 3.0), (0.6, 2.0), (0.5, 1.0)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(9.0, 9.0)], False),  # too early to say
        ([(9.0, 9.0), (1.1, 4.0)], True),
        ([(9.0, 9.0), (0.9, 9.0)], False),  # nearly as small
        ([(9.0, 9.0), (1.1, 3.5)], False),  # nearly as good
        ([(9.0, 9.0)] * 4, False),  # at its end
        ([], False),
    ],
)
def test_a_run_is_stopped_where_another_was_smaller_and_better_at_that_time(rows, expected, tmp_path):
    mine, other = written(tmp_path / "mine", *rows), written(tmp_path / "other", *GOOD)
    assert study.dominated(mine, [tmp_path / "absent", other]) is expected
    longer = written(tmp_path / "longer", *[row for row in GOOD for _ in range(3)], epochs=12)
    assert study.dominated(mine, [longer]) is expected


def test_a_run_that_is_stopped_early_saves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(one_run, "POLL", 0.05)
    (folder := tmp_path / "run").mkdir()
    script = (
        "import signal, sys, time, pathlib\n"
        "def save(*_): pathlib.Path('run/result.json').write_text('{\"status\": \"interrupted\"}'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save); pathlib.Path('ready').touch(); time.sleep(60)"
    )
    monkeypatch.setattr(one_run, "start", lambda words: subprocess.Popen([sys.executable, "-c", script]))
    code, record = one_run.do_run([], folder, lambda: Path("ready").exists())
    assert (code, record.status) == (143, "interrupted")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_run_and_stops_the_command(number, code, tmp_path, monkeypatch):
    script = f"import os, signal; os.kill(os.getppid(), {int(number)}); signal.pause()"
    monkeypatch.setattr(one_run, "start", lambda words: subprocess.Popen([sys.executable, "-c", script]))
    with pytest.raises(one_run.Stopped) as stopped:
        one_run.do_run([], tmp_path)
    assert stopped.value.code == code
