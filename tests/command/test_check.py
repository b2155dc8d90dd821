"""Faults of a command line: all at once, a line each, before anything is written, loaded or imported."""

import re
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from diffq_exp.command.check import Plan, check
from diffq_exp.command.schema import PLAIN, Config, conf_dir
from diffq_exp.common.files import write_json
from diffq_exp.train import main

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))

# The keys that the issue names.
KEYS = {
    "noise", "param", "group_size", "penalty", "min_bits", "max_bits", "init_bits", "bits", "min_size", "exclude",
    "float16", "seed", "epochs", "batch_size", "accumulate", "lr", "bits_lr", "val_fraction", "device", "precision",
    "compile", "threads", "num_workers", "init_from", "restart",
}  # fmt: skip

# A command line that the issue wants refused: what its one line has to say.
SHOWN = {
    "noise=foo": ["gaussian", "uniform"],
    "param=foo": ["bits", "noise"],
    "group_size=-1": ["whole number", ">= 0"],
    "init_bits=20": ["number", "15"],
    "min_bits=9": ["below", "init_bits", "8"],
    "max_bits=99": ["number", "<= 15"],
    "epochs=0": ["whole number", ">= 1"],
    "storage.coding=zip": ["one of", "auto", "packed"],
    "storage.float=float8": ["one of", "float32", "float16"],
    "penalty=-1": ["number", ">= 0"],
    "penalty=nan": ["number", ">= 0"],
    "model=nope": ["unknown", "nearest", "digits_cnn", "resnet20"],
    "dataset=nope": ["unknown", "nearest", "digits", "cifar10"],
    "lr=abc": ["number", "> 0"],
    "nosuchkey=1": ["unknown", "nearest"],
    "group_siz=8": ["unknown", "nearest is group_size"],
    "dataset=image_folder dataset.root=/nowhere": ["dataset.root=/nowhere", "no such folder"],
}

# Faults of one word each, all of which one command line can have: what the line says besides the word.
BAD_WORDS = {
    "param=Bits": "bits, noise",
    "noise=1": "gaussian, uniform",
    "group_size=2.5": "whole number",
    "group_size=true": "whole number",
    "penalty=inf": "number",
    "penalty=null": "number",
    "init_bits=15": "< 15",
    "max_bits=15.5": "<= 15",
    "bits=0": ">= 1",
    "bits=16": "<= 15",
    "min_size=-1": ">= 0",
    "exclude=3": "list",
    "float16=yes": "true or false",
    "seed=-1": ">= 0",
    "seed=1.5": "whole number",
    "epochs=1.5": "whole number",
    "epochs=null": "whole number",
    "batch_size=0": ">= 1",
    "accumulate=0": ">= 1",
    "lr=0": "> 0",
    "lr=[1]": "number",
    "bits_lr=-1": "> 0",
    "clip=0": "> 0",
    "val_fraction=1": "<= 0.9",
    "val_fraction=-0.1": ">= 0",
    "device=tpu": "auto, cpu, cuda, mps",
    "precision=fp8": "float32, bf16, fp16",
    "compile=maybe": "true or false",
    "threads=0": ">= 1",
    "num_workers=-1": ">= 0",
    "checkpoint_minutes=0": "> 0",
    "restart=2": "true or false",
    "quantizer=difq": "nearest is diffq",
    "scheduler=cosin": "nearest is cosine",
    "tracking=wanb": "nearest is wandb",
    "experiment=nope": "quick",
    "batchsize=3": "nearest is batch_size",
    "+minbits=3": "nearest is min_bits",
    "optimizer.weight_decay=-1": ">= 0",
    "optimizer.weight_decai=0": "nearest is optimizer.weight_decay",
    "model.nosuch=1": "+model.nosuch",
    "dataset.flip=sometimes": "true or false",
    "dataset.crop=-1": ">= 0",
    "task.label_smoothing=1": "< 1",
}


@cache
def checked(*words: str) -> Plan:
    return check(words)


def faults(*words: str) -> list[str]:
    errors = checked(*words).errors
    assert all(error and "\n" not in error for error in errors)
    return errors


def only_fault(*words: str) -> str:
    (fault,) = faults(*words)
    return fault


def refused(capsys, monkeypatch, tmp_path, line: str) -> str:
    """The one line on standard error of a command that is refused; nothing was written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *line.split()])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == "" and list(tmp_path.iterdir()) == []
    assert err.endswith("\n") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("line", SHOWN)
def test_shown_when(line, capsys, monkeypatch, tmp_path):
    """Exit code 2, one clear line, no folder."""
    told = refused(capsys, monkeypatch, tmp_path, line)
    for part in (line.split()[-1], *SHOWN[line]):
        assert part in told


def test_device_cuda_without_one(capsys, monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = refused(capsys, monkeypatch, tmp_path, "device=cuda")
    assert "device=cuda" in told and "none" in told and "auto" in told


def test_faults_are_reported_together():
    """One line for each bad word, in a command line of good and bad ones."""
    found = faults("seed=3", *BAD_WORDS, "lr=0.5")
    told = [one for one in found if "seed=3" in one or "lr=0.5" in one]
    assert len(found) == len(BAD_WORDS) and not told


@pytest.mark.parametrize("word", BAD_WORDS)
def test_a_fault_names_key_value_and_what_is_allowed(word):
    key = word.partition("=")[0]
    lines = [one for one in faults("seed=3", *BAD_WORDS, "lr=0.5") if one.startswith((f"{word}: ", f"{key}: "))]
    assert len(lines) == 1 and BAD_WORDS[word] in lines[0], lines


def test_a_word_that_is_no_override():
    found = faults("noise", "epochs=", "lr=[1", "seed=1")
    assert len(found) == 3
    assert "'noise'" in found[0] and "lr=[1" in "".join(found)


def test_faults_together_with_those_of_the_whole():
    """What single values do wrong, and what the good ones do wrong together."""
    found = faults("epochs=0", "min_bits=9", "init_from=/nowhere", "dataset=imagenet", "dataset.root=/nowhere")
    told = "\n".join(found)
    assert len(found) == 4
    for part in ("epochs=0", "min_bits=9", "init_from=/nowhere", "dataset.root=/nowhere"):
        assert part in told


# ---- what values give together --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("min_bits=9",), ["min_bits=9", "init_bits", "8"]),
        (("max_bits=8",), ["init_bits=8", "max_bits", "8"]),
        (("min_bits=3", "init_bits=3", "max_bits=5"), ["min_bits=3", "below init_bits", "3"]),
        (("quantizer=lsq", "bits=2.5"), ["bits=2.5", "whole number", ">= 2", "15"]),
        (("quantizer=lsq", "bits=1"), ["bits=1", ">= 2"]),
        (("dataset=image_folder",), ["dataset.root"]),
        (("init_from=/nowhere",), ["init_from=/nowhere", "no such"]),
        (("experiment=cifar10_resnet20", "max_bits=7"), ["init_bits=8", "max_bits", "7"]),
    ],
)
def test_cross_faults(words, parts):
    fault = only_fault(*words)
    assert all(part in fault for part in parts), fault


def test_bits_do_not_matter_to_a_quantizer_without_them():
    assert faults("quantizer=qat", "min_bits=9") == []
    assert faults("bits=2.5", "quantizer=ptq") == []


def test_init_from_wants_a_run(tmp_path):
    fault = only_fault(f"init_from={tmp_path}")
    assert f"init_from={tmp_path}" in fault
    file = tmp_path / "model.safetensors"
    file.touch()
    assert faults(f"init_from={file}") == []


def test_a_root_that_is_there_is_right(tmp_path):
    assert faults("dataset=image_folder", f"dataset.root={tmp_path}") == []


# ---- sweeps ---------------------------------------------------------------------------------------------------


def test_a_sweep_checks_every_value():
    sweep = ["penalty=1,-1,3", "model=resnet20,nope", "bits=choice(4,99)", "seed=range(-1,2)", "lr=0.1,nan"]
    found = faults("-m", *sweep)
    told = "\n".join(found)
    assert len(found) == 5
    for part in ("penalty=-1", "model=nope", "bits=99", "seed=-1", "lr=nan"):
        assert part in told


def test_a_sweep_checks_what_every_value_gives_with_the_others():
    fault = only_fault("-m", "min_bits=2,9")
    assert "min_bits=9" in fault and "init_bits" in fault


def test_a_good_sweep():
    assert faults("-m", "penalty=0.3,3,30", "quantizer=diffq,qat", "seed=range(0,3)", "noise=uniform") == []


def test_several_values_need_a_sweep():
    found = faults("penalty=1,3", "model=resnet18,resnet20")
    assert len(found) == 2
    assert all("-m" in fault for fault in found)
    assert "penalty=1,3" in found[-1] and "model=resnet18,resnet20" in found[0]


# ---- keys inside groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("optimizer=sgd", "optimizer.momentum=2"), ["optimizer.momentum=2", ">= 0", "< 1"]),
        (("optimizer=sgd", "optimizer.momentun=0.5"), ["optimizer.momentun", "optimizer.momentum"]),
        (("scheduler=step", "scheduler.every=0"), ["scheduler.every=0", "whole number", ">= 1"]),
        (("model.nosuch.deeper=1",), ["model.nosuch", "unknown"]),
    ],
)
def test_bad_keys_of_a_group(words, parts):
    fault = only_fault(*words)
    assert all(part in fault for part in parts), fault


@pytest.mark.parametrize("word", ["quantizer.group_size=-1", "quantizer.noise=foo", "optimizer.lr=-1"])
def test_a_plain_keys_range_holds_inside_its_group_too(word):
    assert word.split("=")[0] in only_fault(word)


def test_what_a_user_may_add_or_replace():
    words = [
        "+model.width=3",
        "model._target_=collections.Net",
        "task._target_=collections.Task",
        "+dataset.extra=[1,2]",
    ]
    assert (
        faults(*words, "quantizer._target_=collections.Quantizer", "optimizer._target_=collections.Optimizer") == []
    )


def test_files_of_the_users_own(tmp_path):
    for name, text in {
        "model/mine.yaml": "_target_: collections.Net\nwidth: 4\n",
        "experiment/ours.yaml": "# @package _global_\ndefaults:\n  - override /model: mine\nepochs: 3\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    place = ["--config-dir", str(tmp_path)]
    assert faults(*place, "model=mine", "model.width=5") == []
    assert faults(*place, "experiment=ours", "model.width=5") == []
    wrong = faults(*place, "experiment=ours", "model=mime", "model.widht=5")
    assert "nearest is mine" in wrong[0]
    assert "nearest is model.width;" in only_fault(*place, "model=mine", "model.widht=5")
    assert only_fault("model=mine").startswith("model=mine: unknown")


def test_a_config_dir_that_is_not_there():
    assert "/nowhere" in only_fault("--config-dir", "/nowhere")


@pytest.mark.parametrize("word", ["model=null", "quantizer=null", "~noise", "epochs=${lr}", "seed=${nosuch}"])
def test_odd_words_are_faults_that_name_the_key(word):
    key = re.split(r"[=]", word.lstrip("~"))[0]
    found = faults(word)
    assert found and all(key in fault for fault in found)


def test_hydras_glob_is_no_traceback():
    plan = check(["-m", "scheduler=glob(cosine*)"])
    assert [job.overrides[0] for job in plan.jobs] == ["scheduler=cosine", "scheduler=cosine_warmup"]


def test_hydras_own_words_pass():
    assert faults("--cfg", "job", "hydra.run.dir=elsewhere", "hydra.job.chdir=false") == []
    assert "nosuch" in only_fault("hydra.nosuch=1")


# ---- good command lines ---------------------------------------------------------------------------------------


def test_the_bare_command_is_right():
    plan = checked()
    assert len(plan.jobs) == 1 and not plan.errors and not plan.warnings


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_right(name, tmp_path):
    root = [f"dataset.root={tmp_path}"] if name == "imagenet_deit" else []
    plan = check([f"experiment={name}", *root])
    assert plan.jobs and not plan.errors and not plan.warnings


def test_the_schema_has_the_keys_of_the_issue():
    assert set(PLAIN) >= KEYS
    config = Config()
    for name, allowed in PLAIN.items():
        assert allowed.allows(getattr(config, name)), name


# ---- warnings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (("quantizer=qat", "noise=uniform", "bits=3", "group_size=4"), ["noise=uniform", "group_size=4"]),
        (("quantizer=none", "penalty=3", "min_size=0"), ["penalty=3", "min_size=0"]),
        (("quantizer=diffq", "bits=3", "penalty=3"), ["bits=3"]),
        (("quantizer=lsq", "bits_lr=0.1", "bits=3"), ["bits_lr=0.1"]),
        (("experiment=cifar10_resnet20", "quantizer=qat"), []),
        (("quantizer=qat", "bits=3", "min_size=0", "float16=true", "exclude=[bias]"), []),
        (("noise=uniform", "param=noise", "group_size=4", "penalty=2", "bits_lr=0.1", "min_bits=3"), []),
        (("quantizer=ptq", "epochs=3", "bits=4", "device=cpu", "num_workers=1", "restart=true"), []),
    ],
)
def test_keys_that_the_quantizer_ignores(words, warned):
    plan = checked(*words)
    assert plan.errors == []
    assert len(plan.warnings) == len(warned)
    for word, warning in zip(warned, plan.warnings, strict=True):
        assert word in warning and "\n" not in warning


def test_a_warning_names_the_quantizer():
    (warning,) = checked("quantizer=none", "penalty=3").warnings
    assert "none" in warning


def test_training_keys_of_a_ptq_without_training(tmp_path):
    write_json(tmp_path / "result.json", {"status": "finished", "signature": "0123456789"})
    plan = check(["quantizer=ptq", f"init_from={tmp_path}", "epochs=3", "lr=0.5", "bits=4", "seed=1"])
    assert plan.errors == []
    assert [warning.split(":")[0] for warning in plan.warnings] == ["epochs=3", "lr=0.5"]
    plan = check(["quantizer=lsq", f"init_from={tmp_path}", "epochs=3"])
    assert plan.jobs and not plan.errors and not plan.warnings


# ---- the command ----------------------------------------------------------------------------------------------


def refused_command(folder: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a command with two faults says in a process of its own, and its seconds of CPU."""
    command = [sys.executable, "-X", "importtime", "-m", "diffq_exp.train", "noise=foo", "param=foo"]
    path = {"PYTHONPATH": str(Path(__file__).parents[2])}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_refused_command_is_quick_and_imports_no_torch(tmp_path):
    done, seconds = refused_command(tmp_path)
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    told = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(told) == 2 and "noise=foo" in told[0] and "param=foo" in told[1]
    assert "hydra" in imported and not imported & {"torch", "torchvision", "wandb", "sklearn"}
    assert list(tmp_path.iterdir()) == []
    assert seconds < 1.5 or refused_command(tmp_path)[1] < 1.5  # a crowded machine gets a second try


# ---- folders, packages, order of words ------------------------------------------------------------------------


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "afile").touch()
    for place in ("afile", "afile/sub"):
        fault = only_fault(f"hydra.run.dir={tmp_path}/{place}")
        assert "is not a folder" in fault and "afile" in fault


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("model._target_=nosuchmodule.Net", "nosuchmodule"),
        ("model._target_=null", "package.Class"),
        ("quantizer.extra_bits=-1", ">= 0"),
        ("++optimizer.lr=abc", "a number > 0"),
        ("threads=100000", "1024"),
    ],
)
def test_faults_of_targets_and_bounds(word, part):
    assert part in only_fault(word)


def test_options_may_follow_overrides(tmp_path):
    plan = check(["lr=1", "-m", "seed=1,2", "--config-dir", str(tmp_path), "epochs=3"])
    assert [(job.cfg.lr, job.cfg.seed, job.cfg.epochs) for job in plan.jobs] == [(1, 1, 3), (1, 2, 3)]


@pytest.mark.parametrize("line", ["storage.flaot=float16", "+storage.flaot=float16"])
def test_storage_has_no_other_options(line, capsys, monkeypatch, tmp_path):
    told = refused(capsys, monkeypatch, tmp_path, line)
    assert "storage.flaot: unknown" in told and "float" in told.replace("storage.flaot", "")
