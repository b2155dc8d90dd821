"""Errors of overrides by themselves: plain keys, choices of groups, keys inside groups."""

import re

import pytest
from helpers.command_lines import errors_of, only_error, refused

from diffq_exp.command.check import check

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
    "storage.float=float8": ["one of", "float32", "float16", "int4", "int15"],
    "storage.float=int16": ["one of", "int4", "int15"],
    "storage.fold=maybe": ["true or false"],
    "penalty=-1": ["number", ">= 0"],
    "penalty=nan": ["number", ">= 0"],
    "model=nope": ["unknown", "nearest", "digits_cnn", "resnet20"],
    "dataset=nope": ["unknown", "nearest", "digits", "cifar10"],
    "lr=abc": ["number", "> 0"],
    "nosuchkey=1": ["unknown", "nearest"],
    "group_siz=8": ["unknown", "nearest is group_size"],
    "dataset=image_folder dataset.root=/nowhere": ["dataset.root=/nowhere", "no such folder"],
}

# Errors of one word each, all of which one command line can have: what the line says besides the word.
BAD_OVERRIDES = {
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


# ---- first ---------------------------------------------------------------------------------------------------


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


def test_errors_are_reported_together():
    """One line for each bad word, in a command line of good and bad ones."""
    found = errors_of("seed=3", *BAD_OVERRIDES, "lr=0.5")
    told = [one for one in found if "seed=3" in one or "lr=0.5" in one]
    assert len(found) == len(BAD_OVERRIDES) and not told


@pytest.mark.parametrize("word", BAD_OVERRIDES)
def test_an_error_names_key_value_and_what_is_allowed(word):
    key = word.partition("=")[0]
    lines = [
        one for one in errors_of("seed=3", *BAD_OVERRIDES, "lr=0.5") if one.startswith((f"{word}: ", f"{key}: "))
    ]
    assert len(lines) == 1 and BAD_OVERRIDES[word] in lines[0], lines


def test_a_word_that_is_no_override():
    found = errors_of("noise", "epochs=", "lr=[1", "seed=1")
    assert len(found) == 3
    assert "'noise'" in found[0] and "lr=[1" in "".join(found)


def test_errors_together_with_those_of_the_whole():
    """What single values do wrong, and what the good ones do wrong together."""
    found = errors_of("epochs=0", "min_bits=9", "init_from=/nowhere", "dataset=imagenet", "dataset.root=/nowhere")
    told = "\n".join(found)
    assert len(found) == 4
    for part in ("epochs=0", "min_bits=9", "init_from=/nowhere", "dataset.root=/nowhere"):
        assert part in told


# ---- keys inside groups --------------------------------------------------------------------------------------


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
    error = only_error(*words)
    assert all(part in error for part in parts), error


@pytest.mark.parametrize("word", ["quantizer.group_size=-1", "quantizer.noise=foo", "optimizer.lr=-1"])
def test_a_plain_keys_range_holds_inside_its_group_too(word):
    assert word.split("=")[0] in only_error(word)


def test_what_a_user_may_add_or_replace():
    words = [
        "+model.width=3",
        "model._target_=collections.Counter",
        "task._target_=collections.Counter",
        "dataset._target_=collections.Counter",
        "+dataset.extra=[1,2]",
    ]
    assert (
        errors_of(*words, "quantizer._target_=collections.Counter", "optimizer._target_=collections.Counter") == []
    )


def test_files_of_the_users_own(tmp_path):
    for name, text in {
        "model/mine.yaml": "_target_: collections.Counter\nwidth: 4\n",
        "experiment/ours.yaml": "# @package _global_\ndefaults:\n  - override /model: mine\nepochs: 3\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    place = ["--config-dir", str(tmp_path)]
    assert errors_of(*place, "model=mine", "model.width=5") == []
    assert errors_of(*place, "experiment=ours", "model.width=5") == []
    wrong = errors_of(*place, "experiment=ours", "model=mime", "model.widht=5")
    assert "nearest is mine" in wrong[0]
    assert "nearest is model.width;" in only_error(*place, "model=mine", "model.widht=5")
    assert only_error("model=mine").startswith("model=mine: unknown")


def test_a_config_dir_that_is_not_there():
    assert "/nowhere" in only_error("--config-dir", "/nowhere")


@pytest.mark.parametrize("word", ["model=null", "quantizer=null", "~noise", "epochs=${lr}", "seed=${nosuch}"])
def test_odd_words_are_errors_that_name_the_key(word):
    key = re.split(r"[=]", word.lstrip("~"))[0]
    found = errors_of(word)
    assert found and all(key in error for error in found)


def test_hydras_glob_is_no_traceback():
    plan = check(["-m", "scheduler=glob(cosine*)"])
    assert [job.overrides[0] for job in plan.jobs] == ["scheduler=cosine", "scheduler=cosine_warmup"]


def test_hydras_own_words_pass():
    assert errors_of("--cfg", "job", "hydra.run.dir=elsewhere", "hydra.job.chdir=false") == []
    assert "nosuch" in only_error("hydra.nosuch=1")
