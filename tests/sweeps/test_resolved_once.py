"""What can be resolved once only, as the time in a folder's name, is the same from a sweep's plan to its end."""

import json
from datetime import datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest
from helpers.run_configs import TINY, listening
from hydra.core import utils

from diffq_exp import train
from diffq_exp.command.check import check
from diffq_exp.common.files import write_json
from diffq_exp.sweeps import one_run
from diffq_exp.sweeps.sweep import Sweep, carry_out
from hydra_plugins.diffq_exp_sweeps.process_launcher import ProcessLauncher, _Waiting

TIMED = "hydra.sweep.dir=multi/${now:%H-%M-%S}"


@pytest.fixture(autouse=True)
def hurrying(tmp_path, monkeypatch):
    """A clock that each look at it puts a second further; in an empty folder, and without reports."""
    seconds = count()
    monkeypatch.setattr(utils, "datetime", SimpleNamespace(now=lambda: datetime.fromtimestamp(next(seconds))))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffq_exp.sweeps.sweep.report_sweep", lambda outputs, name: None)
    for name in ("WANDB_RUN_GROUP", "WANDB_TAGS"):
        monkeypatch.setenv(name, "")


class Anew:
    """A launcher that composes each job anew, as those of Hydra do; `folders`: where the runs would be."""

    def __init__(self, plan, becomes="finished"):
        self.plan, self.becomes, self.folders = plan, becomes, []

    def launch(self, job_overrides, initial_job_idx):
        for number, words in enumerate(job_overrides, initial_job_idx):
            cfg = self.plan.composer.hydra.config_loader.load_sweep_config(self.plan.launching, list(words))
            cfg.hydra.job.num = number
            self.folders.append(folder := Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir)
            folder.mkdir(parents=True)
            (folder / "model.safetensors").touch()
            write_json(folder / "result.json", {"status": self.becomes})


def carried_out(plan, launcher):
    with listening() as lines:
        return carry_out(Sweep.of(plan.jobs, []), launcher), lines


def test_the_jobs_of_a_sweep_have_one_folder():
    plan = check(["-m", "seed=0,1,2", TIMED])
    assert plan.errors == [] and len({job.folder.parent for job in plan.jobs}) == 1
    launcher = Anew(plan)
    code, lines = carried_out(plan, launcher)
    assert (code, launcher.folders) == (0, [job.folder for job in plan.jobs]), lines
    assert len(list(Path("multi").iterdir())) == 1


def test_jobs_keep_their_numbers_when_some_are_done():
    plan = check(["-m", "seed=0,1,2", r"hydra.sweep.dir='it\'s, mine'", "hydra.sweep.subdir=${hydra.job.num}"])
    first, *others = plan.jobs
    first.folder.mkdir(parents=True)
    write_json(first.folder / "result.json", {"status": "diverged", "signature": first.signature})
    launcher = Anew(plan)
    assert carried_out(plan, launcher)[0] == 1
    assert launcher.folders == [job.folder for job in others] and others[0].folder == Path("it's, mine/1")


def test_our_launcher_gets_the_jobs_as_they_were_planned(monkeypatch):
    plan, launcher = check(["-m", "seed=0,1", TIMED]), ProcessLauncher()
    got = []
    monkeypatch.setattr(
        ProcessLauncher,
        "launch",
        lambda self, words, initial_job_idx: got.extend(self._composed(_Waiting(0, one)) for one in words),
    )
    carried_out(plan, launcher)
    assert len(got) == 2 and all(one is job for one, job in zip(got, plan.jobs, strict=True))
    elsewhere = cloudpickle.loads(cloudpickle.dumps(got[1].cfg))  # as in the process of the job
    assert Path(elsewhere.hydra.sweep.dir) / elsewhere.hydra.sweep.subdir == got[1].folder


@pytest.mark.parametrize(
    "words", [["-m", "hydra/launcher=basic", TIMED], ["hydra.run.dir=multi/${now:%H-%M-%S}/a"]]
)
def test_a_command_finds_its_run_where_it_put_it(words):
    assert train.main([*words, *TINY, "epochs=1", "quantizer=none", "dataset.train_images=20"]) == 0
    (result,) = Path("multi").glob("*/*/result.json")
    assert json.loads(result.read_text())["status"] == "finished"


def test_the_run_of_a_search_is_told_its_folder(monkeypatch):
    started = []

    def start(words):
        started.extend(words)
        raise FileNotFoundError

    monkeypatch.setattr(one_run, "start", start)
    with pytest.raises(FileNotFoundError):
        one_run.do_run(["seed=3"], Path("multi/00-00-07"))
    assert started == ["seed=3", "hydra.run.dir=multi/00-00-07"]
