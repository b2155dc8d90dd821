"""A sweep has one launcher: the one that is typed, or that its experiment chooses; another is refused."""

import pytest

from diffq_exp.command.check import check

BASIC = "defaults: [{override /hydra/launcher: basic}]"
EXPERIMENTS = {
    "cluster": f"{BASIC}\nhydra: {{mode: MULTIRUN, sweeper: {{grids: [{{experiment: digits, seed: [0, 1]}}]}}}}",
    "mixed": "hydra: {mode: MULTIRUN, sweeper: {grids: [{experiment: digits}, {experiment: basic}]}}",
    "basic": BASIC,
    "other": "defaults: [{override /hydra/launcher: other}]",
    "one_job": "hydra: {launcher: {n_jobs: 1}}",
}


@pytest.fixture
def planned(tmp_path):
    """The plan of a command line, which may choose these experiments."""
    for name, text in EXPERIMENTS.items():
        file = tmp_path / "experiment" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# @package _global_\n{text}\n")
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    target = "_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher\n"
    (tmp_path / "hydra" / "launcher" / "other.yaml").write_text(f"{target}partition: null\n")
    return lambda words: check(["--config-dir", str(tmp_path), *words.split()])


@pytest.mark.parametrize(
    ("words", "launcher"),
    [
        ("experiment=cluster", "BasicLauncher"),
        ("experiment=cluster hydra/launcher=processes hydra.launcher.n_jobs=2", "ProcessLauncher"),
        ("-m experiment=other hydra.launcher.partition=gpu seed=0,1", "SlurmLauncher"),
        ("-m experiment=basic,digits", "BasicLauncher"),
        ("-m experiment=digits,one_job hydra.launcher.n_jobs=2", "ProcessLauncher"),
        ("-m seed=0,1", "ProcessLauncher"),
    ],
)
def test_the_launcher_of_an_experiment_launches_its_sweep(planned, words, launcher):
    if launcher == "SlurmLauncher":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    plan = planned(words)
    assert plan.errors == [] and len(plan.jobs) == 2
    typed = dict(word.split("=") for word in words.split() if word.startswith("hydra.launcher"))
    for cfg in (plan.launching, *(job.cfg for job in plan.jobs)):
        assert cfg.hydra.launcher._target_.endswith(launcher)
        assert all(str(cfg.hydra.launcher[key.rpartition(".")[2]]) == value for key, value in typed.items())


def test_a_key_that_only_files_of_the_grids_have(tmp_path):
    """The text of a sweep of language models: the data set of the sweep itself is another."""
    grids = "hydra.sweeper.grids=[{experiment:text_gpt,seed:[0,1]}]"
    plan = check(["-m", grids, f"dataset.path={tmp_path}", "epochs=2"])
    assert plan.errors == [] and [job.cfg.dataset.path for job in plan.jobs] == [str(tmp_path)] * 2
    assert plan.launching.epochs == 2 and "path" not in plan.launching.dataset
    assert plan.launching.hydra.overrides.task == [f"dataset.path={tmp_path}", "epochs=2"]


@pytest.mark.parametrize(
    ("words", "experiment", "has"),
    [
        ("-m experiment=digits,basic", "basic", "hydra/launcher=basic"),
        ("-m experiment=basic,other", "other", "hydra/launcher=other"),
        ("experiment=mixed", "basic", "hydra/launcher=basic"),
        ("-m experiment=one_job,digits", "one_job", "hydra.launcher.n_jobs=1"),
    ],
)
def test_another_launcher_than_that_of_the_sweep_is_refused(planned, words, experiment, has):
    (error,) = planned(words).errors
    assert error.startswith(f"experiment={experiment}: has {has}, which a sweep has once: type it")


@pytest.mark.parametrize("words", ["experiment=basic", "hydra/launcher=basic"])
def test_a_launcher_of_a_single_run_is_warned_of(planned, words):
    plan = planned(words)
    assert plan.errors == []
    assert plan.warnings == ["hydra/launcher=basic: is for sweeps (-m); this run is done by the process itself"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+hydra.launcher.nope=1", "hydra.launcher.nope: unknown; allowed are n_jobs, "),
        ("+hydra.sweeper.nope=1", "hydra.sweeper.nope: unknown; allowed are grids, by"),
        ("hydra.launcher._target_=torch.nn.Linear", "hydra.launcher._target_=torch.nn.Linear: one of "),
        ("hydra.launcher._target_=null", "hydra.launcher._target_=None: one of "),
        ("hydra.sweeper._target_=nope.nope", "hydra.sweeper._target_=nope.nope: one of "),
        ("hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: a whole number >= 1"),
    ],
)
def test_a_launcher_that_would_not_start(word, says):
    (error,) = check(["-m", "seed=0,1", word]).errors
    assert error.startswith(says)


def test_a_sweeper_without_its_keys_has_its_defaults():
    plan = check(["-m", "seed=0,1", "~hydra.sweeper.by", "~hydra.sweeper.grids"])
    assert plan.errors == [] and len(plan.jobs) == 2


# ---- what the jobs of a sweep have together ------------------------------------------------------------------


@pytest.mark.parametrize("key", ["dry_run", "restart"])
def test_what_the_command_does_is_not_swept(key):
    for words in ([f"{key}=true,false"], [f"hydra.sweeper.grids=[{{seed:[0],{key}:[true]}},{{seed:[1]}}]"]):
        (error,) = check(["-m", *words]).errors
        assert error == f"{key}: must be the same for all jobs; it says what the command does"
    assert check(["-m", "seed=0,1", f"{key}=true"]).errors == []


@pytest.mark.parametrize("word", ["device=cpu,auto", "num_workers=0,1", "tracking.mode=offline,disabled"])
def test_what_is_no_part_of_a_run_is_not_swept(word):
    (error,) = check(["-m", word]).errors
    assert error.startswith(f"{word.partition('=')[0].partition('.')[0]}: is no part of what a run is")


def test_grids_may_do_other_runs_in_another_way():
    grids = "hydra.sweeper.grids=[{seed:[0],num_workers:[0]},{seed:[1],num_workers:[1]},{seed:[1],num_workers:[1]}]"
    plan = check(["-m", grids])
    assert plan.errors == [] and len(plan.jobs) == 3


def test_strictness_is_swept_only_where_it_is_a_part_of_a_run(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"PK")
    words = ["-m", f"init_from={tmp_path}/net.pt", "init_strict=true,false"]
    (error,) = check([*words, "quantizer=ptq"]).errors  # which refuses every difference anyway
    assert error.startswith("init_strict: is no part of what a run is")
    assert len(check([*words, "quantizer=qat"]).jobs) == 2
