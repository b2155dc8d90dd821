"""Every experiment of conf/experiment: its hyper-parameters, and one step of its own on made images."""

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.run_configs import ask
from omegaconf import OmegaConf
from torch.optim import SGD, Adam, AdamW

from diffq_exp.command.check import check
from diffq_exp.command.float32_run import float32_config
from diffq_exp.command.overrides import grid_overrides, overrides_of_jobs, parse
from diffq_exp.command.schema import conf_dir
from diffq_exp.command.signature import signature
from diffq_exp.runs.build import (
    build,
    build_data,
    build_model,
    build_optimizers,
    build_penalty,
    build_size,
    build_task,
)
from diffq_exp.training.settings import Settings
from diffq_exp.training.trainer import Trainer

# what its data look like: classes, channels, side in pixels
SHAPES = {
    "quick": (10, 3, 32),
    "digits": (10, 1, 8),
    "best": (10, 1, 8),
    "mnist_lenet5": (10, 1, 28),
    "cifar10_resnet20": (10, 3, 32),
    "cifar10_short": (10, 3, 32),
    "cifar10_resnet18": (10, 3, 32),
    "cifar100_wide_resnet": (100, 3, 32),
    "imagenet_deit": (1000, 3, 224),
}
TEXTS = ("text_gpt", "wikitext103_transformer")
SWEEPS = {  # jobs
    "pareto_digits": 81, "pareto_cifar10": 51, "noise_ablation": 36,
    "pareto_text": 42, "pareto_mnist": 24, "pareto_cifar10_short": 39,
}  # fmt: skip
DIGITS = 32 * 9 + 64 * 32 * 9 + 64 * 64 * 9 + 128 * 64 * 9 + 128 * 128 * 9 + 2 * 416 + 128 * 10 + 10
# entries of the network, where the paper or the issue says how many
ENTRIES = {
    "quick": None,
    "digits": DIGITS,
    "best": DIGITS,
    "mnist_lenet5": 431_080,
    "cifar10_resnet20": None,
    "cifar10_short": None,
    "cifar10_resnet18": 11_173_962,
    "cifar100_wide_resnet": 36_536_884,
    "imagenet_deit": 5_717_416,
}

# The paper's code, as the issue has it. Keys are places in the composed config.
CIFAR = {
    "epochs": 200, "batch_size": 128, "lr": 0.1, "clip": 5.0,
    "optimizer._target_": "torch.optim.SGD", "optimizer.momentum": 0.9, "optimizer.nesterov": True,
    "optimizer.weight_decay": 5e-4, "optimizer.lr": 0.1,
    "scheduler._target_": "diffq_exp.training.schedule.Step", "scheduler.every": 60, "scheduler.decay": 0.2,
    "scheduler.bits": False,
    "quantizer._target_": "diffq_exp.quant.DiffQuantizer", "quantizer.group_size": 8,
    "quantizer.min_bits": 2, "quantizer.init_bits": 8, "quantizer.max_bits": 15,
    "quantizer.training.penalty": 5, "quantizer.training.lr": 1e-3,
    "quantizer.noise": "gaussian", "quantizer.param": "bits",
}  # fmt: skip
RESNET20 = {
    **CIFAR, "epochs": 600, "scheduler.every": 200, "scheduler.decay": 0.1, "optimizer.weight_decay": 2e-4,
    "quantizer.training.lr": 2e-4, "quantizer.training.penalty": 10, "quantizer.group_size": 16,
    "quantizer.min_bits": 1, "quantizer.init_bits": 8, "quantizer.max_bits": 10, "quantizer.min_size": 0,
}  # fmt: skip
VALUES: dict[str, dict[str, Any]] = {
    "cifar10_resnet20": {**RESNET20, "dataset._target_": "diffq_exp.data.cifar10"},
    "cifar10_resnet18": {**CIFAR, "dataset._target_": "diffq_exp.data.cifar10"},
    "cifar100_wide_resnet": {**CIFAR, "dataset._target_": "diffq_exp.data.cifar100"},
}


def test_every_experiment_of_conf_is_tested_here():
    assert {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")} == {*SHAPES, *TEXTS, *SWEEPS}


@cache
def planned(name):
    data = f"dataset.path={__file__}" if name == "pareto_text" else "dataset=synthetic"
    return check([f"experiment={name}", data])


PLANNED = [pytest.param(name, marks=[pytest.mark.long] * (name != "pareto_mnist")) for name in SWEEPS]


@pytest.mark.parametrize("name", PLANNED)
def test_a_sweep_has_each_of_its_runs_once_and_without_errors(name):
    plan = planned(name)
    assert not plan.errors and not plan.warnings
    assert len({job.signature for job in plan.jobs}) == len(plan.jobs) == SWEEPS[name]


def test_the_float32_runs_of_the_front_of_mnist_are_those_that_the_others_begin_from():
    jobs = planned("pareto_mnist").jobs
    floats = {job.signature for job in jobs if job.cfg.quantizer._target_ is None}
    begun = {signature(float32_config(job.cfg)) for job in jobs if job.cfg.quantizer._target_ is not None}
    assert floats == begun and len(floats) == 3


def test_the_front_of_the_digits_has_every_method_at_three_seeds():
    sweeper = OmegaConf.load(conf_dir() / "experiment" / "pareto_digits.yaml").hydra.sweeper
    jobs: Counter[tuple[str, str]] = Counter()
    for grid in OmegaConf.to_container(sweeper.grids):
        overrides = [parse(text) for text in grid_overrides(grid)]
        for words in overrides_of_jobs(overrides, lambda group: []):
            values = dict(word.split("=", 1) for word in words)
            jobs[values.get("quantizer", "rate"), values.get("bits", "")] += 1  # rate: of experiment=best
    assert jobs == {
        ("none", ""): 3, ("diffq", ""): 12,
        ("rate", ""): 12,
        **{(method, bits): 6 for method in ("qat", "lsq") for bits in "234"},
        **{(method, "8"): 3 for method in ("qat", "lsq")},
        **{("ptq", bits): 3 for bits in "2348"},
    }  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_hyper_parameters_are_those_of_the_papers_code(name):
    cfg = ask(f"experiment={name}").cfg
    got = {place: OmegaConf.select(cfg, place) for place in VALUES[name]}
    assert got == VALUES[name]
    if name == "cifar10_resnet20":
        assert list(cfg.quantizer.exclude) in (["bias"], ["*bias"], ["*.bias"])
    else:
        assert list(cfg.quantizer.exclude) == []
        assert cfg.quantizer.min_size == 0.01  # the default of the authors' package


def test_deit_is_a_pretrained_one_on_imagenet(tmp_path):
    asked = ask("experiment=imagenet_deit", f"dataset.root={tmp_path}")
    assert asked.cfg.model.name.startswith("deit") and asked.cfg.model.pretrained is True
    assert (asked.choices["model"], asked.choices["dataset"]) == ("deit", "imagenet")
    assert asked.choices["quantizer"] == "diffq"


def test_the_bare_command_is_the_digits_experiment():
    bare, named = ask(), ask("experiment=digits")
    assert bare.cfg == named.cfg and bare.folder == named.folder
    assert (bare.choices["dataset"], bare.choices["model"], bare.choices["quantizer"]) == (
        "digits", "digits_cnn", "diffq",
    )  # fmt: skip


def test_a_key_typed_beside_an_experiment_decides():
    cfg = ask("experiment=cifar10_resnet20", "epochs=3", "optimizer.weight_decay=0", "scheduler.every=7").cfg
    assert (cfg.epochs, cfg.optimizer.weight_decay, cfg.scheduler.every, cfg.lr) == (3, 0, 7, 0.1)


def test_a_group_typed_beside_an_experiment_decides():
    asked = ask("experiment=cifar10_resnet20", "quantizer=qat", "optimizer=adamw", "~optimizer.weight_decay")
    assert asked.choices["quantizer"] == "qat" and asked.choices["optimizer"] == "adamw"


LARGE = ("cifar100_wide_resnet", "imagenet_deit")
ONE_STEP = [pytest.param(name, marks=[pytest.mark.long] * (name in LARGE)) for name in SHAPES]


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_step(name, tmp_path):
    """With its own model, optimizer, quantizer, schedule, precision; pretrained weights are not downloaded."""
    classes, channels, side = SHAPES[name]
    overrides = ["model.pretrained=false"] if name == "imagenet_deit" else []
    cfg = ask(
        f"experiment={name}", *overrides, "dataset=synthetic", f"dataset.num_classes={classes}",
        f"dataset.channels={channels}", f"dataset.image_size={side}", "dataset.train_images=2",
        "dataset.test_images=2", "val_fraction=0", "batch_size=2", "device=cpu",
    ).cfg  # fmt: skip
    torch.manual_seed(0)
    device = torch.device("cpu")
    data = build_data(cfg, device)
    assert (len(data.classes), *data.shape) == (classes, channels, side, side)
    model = build_model(cfg, data, device)
    optimizers, quantizer = build_optimizers(cfg, model)
    _check_optimizers(name, optimizers, quantizer, cfg)
    trainer = _trainer(cfg, model, quantizer, optimizers, data, tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    trainer._step(1, list(data.train.epoch(0)), 1)
    _check_changed(before, model, quantizer)


@pytest.fixture
def texts(tmp_path):
    """Overrides that say where the texts are, {experiment: words}."""
    (tmp_path / "text").write_bytes(bytes(range(256)) * 12)
    for part in ("train", "valid", "test"):
        (tmp_path / f"wiki.{part}.tokens").write_text("a b c <unk> d e f \n" * 200)
    return {
        "text_gpt": [f"dataset.path={tmp_path / 'text'}"],
        "wikitext103_transformer": [f"dataset.root={tmp_path}", "model.width=128", "model.layers=1"],
    }


@pytest.mark.parametrize("name", TEXTS)
def test_one_step_on_a_text(name, texts, tmp_path):
    """All weights are quantized but an embedding of few words; all of them move."""
    cfg = ask(f"experiment={name}", *texts[name], "device=cpu").cfg
    torch.manual_seed(0)
    data = build_data(cfg, torch.device("cpu"))
    model = build_model(cfg, data, torch.device("cpu"))
    optimizers, quantizer = build_optimizers(cfg, model)
    weights = {key: value for key, value in model.named_parameters() if key not in quantizer.learned()}
    wide = {key for key, value in weights.items() if 4 * value.numel() / 2**20 > cfg.min_size}
    assert wide == set(quantizer.quantized_names) and len(wide) >= 4
    trainer = _trainer(cfg, model, quantizer, optimizers, data, tmp_path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    trainer._step(1, list(data.train.epoch(0))[:1], 1)
    assert all(not torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_sizes_of_the_text_experiments(texts):
    cfg = ask("experiment=text_gpt", *texts["text_gpt"]).cfg
    data = build_data(cfg, torch.device("cpu"))
    entries = sum(value.numel() for value in build_model(cfg, data, torch.device("cpu")).parameters())
    assert 750_000 < entries < 900_000
    cfg = ask("experiment=wikitext103_transformer", texts["wikitext103_transformer"][0]).cfg
    assert (cfg.model.layers, cfg.model.width, cfg.model.heads) == (16, 1024, 8)
    assert (cfg.group_size, cfg.bits_lr, cfg.penalty) == (16, 1e-3, 3e-4)


def _trainer(cfg, model, quantizer, optimizers, data, folder: Path) -> Trainer:
    settings = Settings(cfg.epochs, cfg.accumulate, cfg.clip, precision=cfg.precision)
    schedule, task = build(cfg.scheduler), build_task(cfg, data)
    return Trainer(
        model, quantizer, optimizers, schedule, task, data, settings,
        device=torch.device("cpu"), folder=folder, run_id="x", listeners=[],
        penalty=build_penalty(cfg, build_size(cfg)),
    )  # fmt: skip


def _check_optimizers(name, optimizers, quantizer, cfg) -> None:
    weights, *rest = optimizers.optimizers
    if name == "cifar10_short":
        assert type(weights) is SGD and [type(one) for one in rest] == [Adam]
    elif name in VALUES:
        assert type(weights) is SGD and [type(one) for one in rest] == [Adam]
        assert weights.defaults["nesterov"] and weights.defaults["momentum"] == 0.9
        assert weights.defaults["lr"] == 0.1
        assert weights.defaults["weight_decay"] == VALUES[name]["optimizer.weight_decay"]
    else:
        assert type(weights) is (AdamW if name == "imagenet_deit" else Adam) and not rest
    logits = (rest or [weights])[-1].param_groups[-1]
    assert {id(one) for one in logits["params"]} == {id(one) for one in quantizer.learned().values()}
    assert logits["lr"] == cfg.quantizer.training.lr and logits["weight_decay"] == 0
    if name == "cifar10_resnet20":
        assert quantizer.float_names and all(one.endswith("bias") for one in quantizer.float_names)
    total = sum(one.numel() for one in quantizer.model.parameters())
    learned = sum(one.numel() for one in quantizer.learned().values())
    if (entries := ENTRIES[name]) is not None:
        assert total - learned == entries


def _check_changed(before, model, quantizer) -> None:
    learned = quantizer.learned()
    for key, value in model.named_parameters():
        assert torch.isfinite(value).all(), key
        if value.grad is not None and value.grad.abs().sum() > 0:
            assert not torch.equal(value, before[key]), key
    moved = [key for key, value in model.named_parameters() if not torch.equal(value, before[key])]
    assert set(learned) <= set(moved)  # every layer's bits
    assert len(moved) > 0.9 * len(before) - sum("running" in key or "num_batches" in key for key in before)
