"""What a sweep is before it runs: the configs of its jobs, the errors that refuse it, and what dry_run tells."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from diffq_exp.command.check import check
from diffq_exp.command.compose import composer
from diffq_exp.command.schema import conf_dir, register
from diffq_exp.command.signature import register_resolver, run_name, signature
from diffq_exp.common.files import write_json
from diffq_exp.train import main

GRIDS = """# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    grids: [{}]
"""


def grids(folder, *lines, name="mine"):
    """An experiment of the user's own with these grids; -> the words that choose it."""
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "experiment" / f"{name}.yaml").write_text(GRIDS.format(", ".join(lines)))
    return ["--config-dir", str(folder), f"experiment={name}"]


def only_error(words):
    plan = check(words)
    assert len(plan.errors) == 1 and "\n" not in plan.errors[0], plan.errors
    return plan.errors[0]


def told(capsys, monkeypatch, *words):
    """What a command says; -> exit code, standard output, standard error."""
    monkeypatch.setattr(sys, "argv", ["train", *words])
    code = main()
    return code, *capsys.readouterr()


# ---- configs ----------------------------------------------------------------------------------------------------


LINES = [
    "",
    "lr=1 seed=3 noise=uniform clip=null threads=2",
    "quantizer=qat quantizer=lsq bits=3",
    "noise=uniform quantizer.noise=gaussian",
    "experiment=cifar10_resnet20 quantizer=none scheduler.every=7 min_size=0",
    "hydra.sweep.subdir=${hydra.job.override_dirname} seed=3 quantizer=qat",
]
MORE_LINES = [
    "lr=4 lr=5",
    "lr=4 ++lr=3",
    "++lr=3 lr=4",
    "exclude=[a,b] exclude=[c]",
    "exclude=[a] ++exclude=[b]",
    "quantizer=qat bits=3 quantizer.qat=false",
    "optimizer=sgd optimizer.momentum=0.5 optimizer.lr=${bits_lr} bits_lr=0.25",
    "epochs=${batch_size} batch_size=16",
    "+model.width=3 ++task.label_smoothing=0.1 lr=1e-3",
    "optimizer=sgd ~optimizer.nesterov lr=1",
    "experiment=quick epochs=3",
    "seed=3 experiment=pareto_digits",
    "dataset=synthetic dataset.num_classes=4 val_fraction=0",
    "hydra.sweep.dir=elsewhere/${seed} seed=3",
]


@pytest.mark.parametrize("line", [*LINES, *(pytest.param(line, marks=pytest.mark.long) for line in MORE_LINES)])
def test_a_composed_job_is_hydras_own(line):
    """Plain values are set in a copy of what the choices give; it comes to the same config, name and folder."""
    register()
    register_resolver()
    words = line.split()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        want = compose("config", words, return_hydra_config=True)
    got = composer()(words)
    ours, theirs = OmegaConf.to_container(got), OmegaConf.to_container(want)
    ours["hydra"]["job"]["name"] = theirs["hydra"]["job"]["name"]  # the name of the command
    assert ours == theirs
    assert signature(got) == signature(want) and run_name(got) == run_name(want)
    assert Path(got.hydra.sweep.dir, got.hydra.sweep.subdir) == Path(want.hydra.sweep.dir, want.hydra.sweep.subdir)


def test_a_composed_config_is_nobody_elses():
    composer()(["lr=3"]).quantizer.training.penalty = 99
    assert composer()(["lr=3"]).quantizer.training.penalty == 1


def test_experiments_side_by_side_and_grids_of_ones_own(tmp_path):
    jobs = check(["-m", "experiment=digits,quick", "seed=0,1"]).jobs
    choices = [(job.cfg.hydra.runtime.choices.experiment, job.cfg.seed) for job in jobs]
    assert choices == [("digits", 0), ("digits", 1), ("quick", 0), ("quick", 1)]
    words = grids(tmp_path, "{experiment: digits, quantizer: [qat, lsq], bits: [2, 3]}", "{penalty: [1]}")
    plan = check([*words, "bits=5"])
    assert not plan.errors
    chosen = [(job.cfg.hydra.runtime.choices, job.cfg.bits) for job in plan.jobs]
    assert [(one.experiment, one.quantizer, bits) for one, bits in chosen] == [
        ("digits", "qat", 5), ("digits", "lsq", 5), ("mine", "diffq", 5),
    ]  # fmt: skip


# ---- errors -----------------------------------------------------------------------------------------------------


def test_one_error_in_any_grid_refuses_the_whole_and_all_are_told_at_once(tmp_path, capsys, monkeypatch):
    words = grids(
        tmp_path / "mine",
        "{experiment: digits, seed: [0, 1]}",
        "{lr: [0.1, -1], nosuch: 3}",
        "{optimizer: [adam, adan]}",
        "{min_bits: [2, 9]}",
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, out, err = told(capsys, monkeypatch, *words, "epochs=0")
    assert (code, out) == (2, "") and list(Path().iterdir()) == []
    lines = err.splitlines()
    assert len(lines) == 5
    for part in ("epochs=0", "lr=-1", "nosuch=3", "optimizer=adan", "min_bits=9"):
        assert sum(part in line for line in lines) == 1, part


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("seed=0,1 hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: a whole number >= 1 or null"),
        ("seed=0,1 hydra.launcher.n_jobs=two", "hydra.launcher.n_jobs=two: a whole number"),
        ("seed=0,1 hydra.launcher.n_jobs=1,2", "hydra.launcher.n_jobs=1,2"),
        ("lr=interval(0,1)", "lr=interval(0,1): intervals need another sweeper"),
        ("seed=0,1 optimizer=glob(x*)", "optimizer=glob(x*)"),
        ("lr=glob(*)", "lr=glob(*)"),
        ("seed=range(3,0)", "seed=range(3,0)"),
        ("seed=range(0,1,0)", "seed=range(0,1,0)"),
        pytest.param("experiment=pareto_digits,digits", "stands alone", marks=pytest.mark.long),
        ("experiment=digits,pareto_digits", "stands alone"),
        ("seed=0,1 hydra.sweeper.grids=3", "hydra.sweeper.grids=3: a list"),
        ("hydra.sweeper.grids=[3]", "hydra.sweeper.grids=[3]: a list"),
        ("seed=0,1 hydra.sweeper.by=quantizer", "hydra.sweeper.by=quantizer"),
        ("seed=0,1 hydra.sweep.dir=${seed}", "hydra.sweep.dir: must be the same for all jobs"),
        ("seed=0,1 hydra.sweep.subdir=same", "several jobs would write to outputs/same"),
    ],
)
def test_errors_of_a_sweep(words, part):
    assert part in only_error(["-m", *words.split()])


@pytest.mark.parametrize("value", ["'interval(0,1)'", "'glob(*)'", "[]"])
def test_values_of_a_grid_that_cannot_be_counted(tmp_path, value):
    assert "lr" in only_error(grids(tmp_path, f"{{experiment: digits, lr: {value}}}"))


def test_jobs_that_are_the_same_run_may_share_its_folder():
    plan = check(["-m", "seed=0,1", "quantizer=qat", "penalty=1,2", "hydra.sweep.subdir=run-${seed}"])
    assert not plan.errors and len(plan.jobs) == 4
    assert {str(job.folder) for job in plan.jobs} == {"outputs/run-0", "outputs/run-1"}


def test_folders_by_hydras_name_for_the_overrides():
    plan = check(["-m", "seed=0,1", "hydra.sweep.subdir=${hydra.job.override_dirname}"])
    assert not plan.errors and len({job.folder for job in plan.jobs}) == 2


def test_a_word_without_effect_in_every_job_is_told_once(tmp_path):
    words = grids(tmp_path, "{experiment: digits, quantizer: [qat, lsq]}", "{experiment: digits, quantizer: none}")
    plan = check([*words, "noise=uniform", "bits=3"])
    assert not plan.errors and len(plan.jobs) == 3
    assert [warning.split(":")[0] for warning in plan.warnings] == ["noise=uniform"]


# ---- dry_run ----------------------------------------------------------------------------------------------------

SWEEP = ["-m", "quantizer=qat,lsq", "seed=0,1", "epochs=2", "threads=1", "tracking=none", "dry_run=true"]


def ended(job, status="finished", seconds=60.0, epochs=2):
    """Leave in a job's folder what its run would."""
    choices = {"dataset": "digits", "model": "digits_cnn", "quantizer": "qat"}
    result = {"status": status, "signature": job.signature, "choices": choices, "config": {"epochs": epochs}}
    job.folder.mkdir(parents=True)
    (job.folder / "model.safetensors").touch()
    write_json(job.folder / "result.json", {**result, "seconds": seconds})


def on_disk():
    return {path: path.stat().st_mtime_ns for path in Path().rglob("*")}


@pytest.fixture
def dry_run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffq_exp.sweeps.cores.cores", lambda: 2)

    def tell(*words):
        before = on_disk()
        code, out, err = told(capsys, monkeypatch, *SWEEP, *words)
        assert (code, err, on_disk()) == (0, "", before)
        return out.splitlines()

    return tell


def test_a_dry_run_lists_the_jobs_and_writes_nothing(dry_run):
    *listed, count, time = dry_run()
    for number, (line, job) in enumerate(zip(listed, check(SWEEP).jobs, strict=True), start=1):
        assert line.split()[:4] == [str(number), "to", "do", job.folder.name]
        assert line.endswith(shlex.join(job.overrides[:-1])) and "dry_run" not in line
    assert count == "4 runs: 0 done already, 4 to do" and "unknown" in time


@pytest.mark.long
def test_a_dry_run_tells_what_is_done_and_the_time_for_the_rest(dry_run):
    """By the median of finished runs of the same data, network and epochs, two at a time."""
    jobs = check(SWEEP).jobs
    ended(jobs[0], seconds=60.0)
    ended(jobs[1], "failed")
    ended(jobs[2], "diverged", seconds=1.0)
    for seed, seconds in enumerate((40.0, 50.0), start=7):
        ended(check([f"seed={seed}", "quantizer=qat", "epochs=2", "threads=1"]).jobs[0], seconds=seconds)
    ended(check(["epochs=9"]).jobs[0], seconds=1e6, epochs=9)
    *listed, count, time = dry_run()
    assert [line[6:17].strip() for line in listed] == ["finished", "failed", "diverged", "to do"]
    assert count == "4 runs: 2 done already, 2 to do"
    assert time == "time to expect: 50 s, 2 at a time"
    assert dry_run("hydra.launcher.n_jobs=1")[-1] == "time to expect: 1 min 40 s, 1 at a time"
    assert dry_run("restart=true")[-1] == "time to expect: 1 min 40 s, 2 at a time"


def test_a_dry_run_says_each_run_once_and_no_time_where_all_is_done(dry_run):
    for job in check(SWEEP).jobs:
        ended(job)
    *listed, count = dry_run("seed=0,1,0")
    assert len(listed) == 4 and count == "4 runs: 4 done already, 0 to do"


def test_a_finished_run_without_its_network_is_to_do(dry_run):
    first = check(SWEEP).jobs[0]
    ended(first)
    os.remove(first.folder / "model.safetensors")
    assert "to do" in dry_run()[0]
