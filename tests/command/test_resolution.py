"""Values that do not resolve or are none of their kind: a line that begins with the key, and no traceback."""

import os
from pathlib import Path

import pytest
from helpers.command_lines import checked, errors_of, only_error

from diffq_exp.command.check import check


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("+model.foo=${nope}", "model.foo"),
        ("+model.foo=[1,${nope}]", "model.foo[1]"),
        ("+model.foo={a:{b:${nope}}}", "model.foo.a.b"),
        ("+model.foo=${dataset.nope}", "model.foo"),
        ("model._target_=${nope}", "model._target_"),
        ("+quantizer.training.foo=${nope}", "quantizer.training.foo"),
        ("tracking.name=${oc.env:NOSUCHVARIABLE}", "tracking.name"),
        ("tracking.name=${hydra:job.name}", "tracking"),
        ("+model.foo=${hydra.job.name}", "model"),  # resolves here, and no more in the run
        ("+model.foo=${model}", "model.foo"),
        ("lr=${nope}", "lr"),
        ("lr=${optimizer.lr}", "lr"),
        ("hydra.run.dir=${nope}", "hydra.run.dir"),
        ("+hydra.job.env_set.A=${nope}", "hydra.job.env_set.A"),
    ],
)
def test_what_does_not_resolve_is_named(word, key):
    assert only_error(word).startswith(f"{key}: ")


@pytest.mark.parametrize("key", ["hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher.n_jobs"])
def test_in_a_sweep(key):
    assert only_error("-m", "seed=0,1", f"{key}=${{nope}}").startswith(f"{key}: ")


def test_what_resolves_passes():
    assert (
        errors_of(
            "lr=${bits_lr}", "hydra.run.dir=out/${seed}", "+model.in_channels=${.image_size}", "+model.image_size=3"
        )
        == []
    )
    assert errors_of("-m", "seed=0,1", "hydra.sweep.subdir=${hydra.job.num}") == []
    assert errors_of("+hydra.job.env_set.A=${hydra.runtime.output_dir}") == []


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("hydra=5", "hydra=5: Hydra's own keys are set one by one"),
        ("~hydra", "~hydra: Hydra's own keys are set one by one"),
        ("hydra.launcher=null", "hydra.launcher=null: hydra/launcher=NAME chooses one"),
        ("hydra.sweeper=5", "hydra.sweeper=5: "),
        ("hydra.run=5", "hydra.run=5: Invalid type assigned"),
        ("hydra.run.dir=null", "hydra.run.dir=null: "),
        ("hydra.launcher.njobs=2", "hydra.launcher.njobs: unknown; the nearest is hydra.launcher.n_jobs"),
        ("hydra.nope.a=2", "hydra.nope.a: unknown; --cfg hydra shows all"),
        ("~hydra.launcher.n_jobs", "~hydra.launcher.n_jobs: there is no such key, or it has no value"),
        ("hydra.mode=nope", "hydra.mode=nope: Invalid value 'nope', expected one of"),
    ],
)
@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_nodes_of_hydras_that_are_none(word, says, multirun):
    assert only_error(*multirun, word).startswith(says)


# ---- folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["hydra.run.dir=", "hydra.run.dir=???"])
def test_a_folder_without_a_name(word):
    assert only_error(word).startswith("hydra.run.dir=")


@pytest.mark.parametrize("key", ["hydra.sweep.dir", "hydra.sweep.subdir"])
def test_a_folder_of_a_sweep_without_a_name(key):
    assert only_error("-m", f"{key}=", "seed=0").startswith(f"{key}=: text is allowed")


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text("# @package _global_\nhydra: {run: {dir: ~/own}}\n")
    assert check(["hydra.run.dir=~/a/${seed}"]).jobs[0].folder == tmp_path / "a" / "0"
    assert check(["--config-dir", str(tmp_path), "experiment=own"]).jobs[0].folder == tmp_path / "own"
    plan = check(["-m", "seed=0,1", "hydra.sweep.dir=~/b"])
    assert plan.launching.hydra.sweep.dir == str(tmp_path / "b") == str(plan.jobs[1].folder.parent)
    words = ["seed=1", "hydra.sweep.dir='~/c'"]  # as a launcher composes it anew
    cfg = plan.composer.hydra.config_loader.load_sweep_config(plan.launching, words)
    assert cfg.hydra.sweep.dir == str(tmp_path / "c")


def test_a_folder_that_may_not_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    (error,) = check([f"hydra.run.dir={tmp_path}/a/b"]).errors
    assert error == f"hydra.run.dir={tmp_path}/a/b: {tmp_path} cannot be written to"
    assert check([f"hydra.run.dir={tmp_path}"]).errors == []


# ---- what is read is what it should be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("quantizer.training=5",), "quantizer.training=5: a mapping is allowed"),
        (("quantizer.training=null", "target_mb=1"), "quantizer.training=null: a mapping is allowed"),
        (("tracking.tags=5",), "tracking.tags=5: a list of texts is allowed"),
        (("exclude=[[a]]",), "exclude=[['a']]: a list of texts is allowed"),
        (("dataset=image_folder", "dataset.root=[a]"), "dataset.root=['a']: text is allowed"),
        (("dataset=image_folder", "dataset.root="), "dataset.root=: text is allowed"),
        (("dataset=image_folder", "dataset.root=null"), "dataset.root=null: text is allowed"),
        (("dataset=text", "dataset.path={a:b}"), "dataset.path={'a': 'b'}: text is allowed"),
        (("dataset=cifar10", "dataset.download_root=[a]"), "dataset.download_root=['a']: text is allowed"),
        (("dataset=huggingface", "dataset.name=null"), "dataset.name=null: a value is allowed"),
        (("init_from=",), "init_from=: text or null is allowed"),
        (("tracking.timeout_seconds=-1",), "tracking.timeout_seconds=-1: a number > 0 is allowed"),
        (("tracking.name=[a]",), "tracking.name=['a']: text or null is allowed"),
    ],
)
def test_kinds_of_values(words, says):
    assert only_error(*words) == says


@pytest.mark.parametrize(
    "word",
    [
        "~penalty_schedule.start",
        "~storage.float",
        "~quantizer.training.penalty",
        "~dataset.seed",
        "~model._target_",
    ],
)
def test_a_key_of_ours_is_not_removed(word):
    assert only_error("penalty_schedule=ramp", word) == f"{word}: a key can be set, but not removed"


def test_a_key_of_somebody_elses_class_is_removed():
    plan = checked(
        "optimizer=sgd", "~optimizer.nesterov", "quantizer._target_=collections.Counter", "~quantizer.training"
    )
    assert plan.errors == [] and "training" not in plan.jobs[0].cfg.quantizer


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quantizer: {training: 5}", "quantizer.training=5: a mapping is allowed"),
        ("quantizer: {training: {penalty: -1}}", "quantizer.training.penalty=-1: a number >= 0 is allowed"),
        ("storage: {float: null}", "storage.float=null: one of"),
        ("dataset: {flip: 5}", "dataset.flip=5: true or false is allowed"),
        (
            "defaults: [{override /dataset: image_folder}]\ndataset: {root: [a]}",
            "dataset.root=['a']: text is allowed",
        ),
        ("epochs: 0", "epochs=0: a whole number >= 1 is allowed"),
        ("optimizer: {lr: '${nope}'}", "optimizer.lr: Interpolation key 'nope' not found"),
    ],
)
def test_values_of_a_users_experiment(text, says, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    (error,) = check(["--config-dir", str(tmp_path), "experiment=own"]).errors
    assert error.startswith(says)
