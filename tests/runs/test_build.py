"""From config nodes to objects: what is passed, what is left out, and how errors are told."""

import pytest
import torch
from helpers.run_configs import TINY, ask, do
from helpers.run_folders import never
from helpers.run_pieces import TinyNet, tiny_data
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from torchvision.models import VisionTransformer

from diffq_exp import models
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer
from diffq_exp.quant.noise import Uniform
from diffq_exp.runs.build import (  # fmt: skip
    UserError,
    attach_quantizer,
    build,
    build_data,
    build_model,
    build_optimizers,
    build_penalty,
    build_size,
    check_takes,
    pick_device,
)
from diffq_exp.training.penalty import RampPenalty
from diffq_exp.training.trainer import Trainer

CPU = torch.device("cpu")
HERE = "runs.test_build"


class Takes:
    def __init__(self, a, b=2):
        self.got = {"a": a, "b": b}


class TakesAll:
    def __init__(self, **rest):
        self.got = rest


def fails(a):
    raise ZeroDivisionError("by a")


def node(_target_, **keys):
    return OmegaConf.create({"_target_": _target_, **keys})


def mine(name):
    return f"{HERE}.{name}"


# ---- build --------------------------------------------------------------------------------------------------


def test_keys_of_the_node_are_passed():
    assert build(node(mine("Takes"), a=1)).got == {"a": 1, "b": 2}


def test_of_what_is_known_at_run_time_only_what_is_taken_is_passed():
    assert build(node(mine("Takes")), a=5, device="cpu", z=0).got == {"a": 5, "b": 2}
    assert build(node(mine("TakesAll"), x=1), a=5, z=0).got == {"x": 1, "a": 5, "z": 0}


def test_interpolations_are_resolved_and_containers_are_plain():
    root = OmegaConf.create({"lr": 0.25, "it": {"_target_": mine("TakesAll"), "a": "${lr}", "b": [1, {"c": 2}]}})
    got = build(root.it).got
    assert got == {"a": 0.25, "b": [1, {"c": 2}]}
    assert type(got["b"]) is list and type(got["b"][1]) is dict


def test_partial_makes_a_function():
    make = build(node("torch.optim.SGD", _partial_=True, lr=0.5, momentum=0.9))
    optimizer = make(nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, torch.optim.SGD) and optimizer.defaults["momentum"] == 0.9


def test_how_a_node_is_used_is_not_passed():
    assert build(node(mine("TakesAll"), a=1, training={"penalty": 3})).got == {"a": 1}


def test_what_a_target_raises_comes_unwrapped():
    with pytest.raises(ZeroDivisionError, match="by a"):
        build(node(mine("fails"), a=1))


@pytest.mark.parametrize("target", ["nosuchmodule.Net", "torch.nn.NoSuchLayer", "Nowhere", "torch.nn."])
def test_no_such_target_is_one_line_that_names_it(target):
    with pytest.raises(UserError) as caught:
        build(node(target))
    assert target in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_value_is_refused():
    with pytest.raises(OmegaConfBaseException, match="root"):
        build(node(mine("TakesAll"), root="???"))


# ---- data and model -----------------------------------------------------------------------------------------

SMALL = ("dataset=synthetic", "dataset.image_size=8", "dataset.train_images=20", "dataset.test_images=10")


def test_the_model_is_told_of_its_data():
    assert tiny_data(classes=3).model_arguments == {"num_classes": 3, "in_channels": 1, "image_size": 8}
    cfg = ask(*SMALL, "dataset.channels=2", "dataset.num_classes=7", "val_fraction=0").cfg
    model = build_model(cfg, build_data(cfg, CPU), CPU)
    assert model(torch.zeros(2, 2, 8, 8)).shape == (2, 7)


def test_data_take_batch_size_seed_and_val_fraction():
    cfg = ask(*SMALL, "batch_size=4", "val_fraction=0.5").cfg
    data = build_data(cfg, CPU)
    assert (data.train.batch_size, data.train.examples, data.val.examples) == (4, 10, 10)
    other = build_data(ask(*SMALL, "batch_size=4", "val_fraction=0.5", "seed=1").cfg, CPU)
    assert not torch.equal(next(iter(data.train.epoch(0)))[0], next(iter(other.train.epoch(0)))[0])


def test_without_a_val_fraction_there_is_no_validation_part():
    assert build_data(ask(*SMALL, "val_fraction=0").cfg, CPU).val is None


def test_a_target_that_gives_something_else_is_refused():
    cfg = ask(*SMALL, "val_fraction=0").cfg
    cfg.dataset = {"_target_": mine("Takes"), "a": 1}
    with pytest.raises(UserError, match=rf"{HERE}\.Takes.*Takes, not a Data"):
        build_data(cfg, CPU)
    cfg.model = {"_target_": mine("Takes"), "a": 1}
    with pytest.raises(UserError, match=r"Takes, not an nn\.Module"):
        build_model(cfg, tiny_data(), CPU)
    cfg.quantizer = {"_target_": mine("Takes"), "b": 1}
    with pytest.raises(UserError, match=r"Takes, not a Quantizer"):
        attach_quantizer(cfg, TinyNet())
    cfg.size = {"_target_": mine("Takes"), "a": 1}
    with pytest.raises(UserError, match=r"Takes, not a Size"):
        build_size(cfg)


def test_devices():
    assert pick_device("cpu") == CPU
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == best


# ---- quantizer and optimizers -------------------------------------------------------------------------------


def attached(*overrides):
    model = TinyNet()
    return model, attach_quantizer(ask(*overrides).cfg, model)


def test_diffq_takes_the_plain_keys():
    _, made = attached(
        "noise=uniform", "param=noise", "group_size=16", "min_bits=1.5", "init_bits=6", "max_bits=9",
        "min_size=0.0005", "exclude=[conv.*]", "float16=true",
    )  # fmt: skip
    assert type(made) is DiffQuantizer
    assert (made.noise, made.group_size, made.float16) == (Uniform(), 16, True)
    assert (made.min_bits, made.init_bits, made.max_bits) == (1.5, 6, 9)
    assert made.quantized_names == ["head.weight"]
    (bits,) = made.bits().values()
    assert bits.shape == (128,) and torch.allclose(bits, torch.tensor(6.0))


@pytest.mark.parametrize(("name", "kind"), [("qat", UniformQuantizer), ("ptq", UniformQuantizer), ("lsq", LSQ)])
def test_fixed_widths_take_theirs(name, kind):
    _, made = attached(f"quantizer={name}", "bits=3", "min_size=0.0005")
    assert type(made) is kind and made.width == 3
    assert getattr(made, "qat", None) == {"qat": True, "ptq": False, "lsq": None}[name]
    assert made.quantized_names == ["head.weight"]


def test_none_attaches_nothing():
    model, made = attached("quantizer=none")
    assert made is None and not model._forward_pre_hooks


@pytest.mark.parametrize("quantizer", ["diffq", "qat", "lsq"])
def test_nothing_left_to_quantize_names_the_largest_and_its_size(quantizer):
    model = TinyNet()
    with pytest.raises(UserError) as caught:
        attach_quantizer(ask(f"quantizer={quantizer}", "min_size=1000").cfg, model)
    text = str(caught.value)
    assert "min_size=1000" in text and "'head.weight'" in text and f"{4 * 2048 / 2**20:.4g} MB" in text
    assert not model._forward_pre_hooks


def test_everything_excluded_says_so():
    with pytest.raises(UserError, match=r"exclude=\['\*'\]"):
        attach_quantizer(ask("exclude=['*']", "min_size=0").cfg, TinyNet())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weights_follow_lr_and_bits_follow_bits_lr(optimizer):
    cfg = ask(f"optimizer={optimizer}", "lr=0.03", "bits_lr=0.007", "min_size=0.0005").cfg
    optimizers, quantizer = build_optimizers(cfg, TinyNet())
    weights, bits = optimizers.param_groups
    assert (weights["lr"], bits["lr"], bits["weight_decay"]) == (0.03, 0.007, 0)
    assert [id(one) for one in bits["params"]] == [id(one) for one in quantizer.learned().values()]
    assert len(optimizers.optimizers) == (2 if optimizer == "sgd" else 1)


def test_the_penalty_is_built_from_weight_size_and_schedule():
    cfg = ask("penalty=7", "penalty_schedule=ramp", "penalty_schedule.end=0.25").cfg
    penalty = build_penalty(cfg, build_size(cfg))
    assert (penalty.weight, penalty.size.name, penalty.schedule) == (7, "formula", RampPenalty(0.0, 0.25))
    cfg = ask("quantizer=lsq", "penalty=7").cfg
    assert build_penalty(cfg, build_size(cfg)) is None


def test_lsq_ignores_bits_lr():
    cfg = ask("quantizer=lsq", "optimizer=sgd", "lr=0.03", "bits_lr=0.007", "min_size=0.0005").cfg
    optimizers, _ = build_optimizers(cfg, TinyNet())
    assert {group["lr"] for group in optimizers.param_groups} == {0.03}
    assert {group["weight_decay"] for group in optimizers.param_groups} == {5e-4}


# ---- inputs that a network does not take --------------------------------------------------------------------


class Awkward(nn.Module):
    """Draws in evaluation too, and has a part that stays in evaluation."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1).eval()

    def forward(self, images):
        return self.norm(images).flatten(1) + torch.rand(1)


def sized(height, width):
    data = tiny_data()
    data.input["shape"] = [1, height, width]
    return data


def test_a_network_that_takes_the_data_stays_as_it_is():
    model = Awkward()
    before, state = model.norm.running_mean.clone(), torch.get_rng_state()
    check_takes(model, sized(8, 9))
    assert model.training and not model.norm.training and torch.equal(model.norm.running_mean, before)
    assert torch.equal(torch.get_rng_state(), state)
    data = tiny_data()
    data.input = {}
    check_takes(nn.Linear(1, 1), data)  # nothing is known of its inputs


@pytest.mark.parametrize(
    ("model", "shape", "told"),
    [
        (lambda: VisionTransformer(24, 4, 1, 2, 8, 8), (24, 32), "Wrong image width! Expected 24 but got 32!"),
        (lambda: models.lenet5(4, 1), (3, 3), "RuntimeError: "),
        (lambda: TinyNet(), (9, 8), "RuntimeError: "),
    ],
)
def test_an_image_size_that_a_network_does_not_take_is_told(model, shape, told):
    data, model = sized(*shape), model()
    data.input["shape"] = [3 if isinstance(model, VisionTransformer) else 1, *shape]
    with pytest.raises(UserError) as raised:
        check_takes(model, data)
    assert str(raised.value).startswith(
        f"the network does not take the inputs of synthetic, {data.input['shape']}: "
    )
    assert told in str(raised.value) and str(raised.value).endswith(
        "; dataset.image_size brings images to one size"
    )
    assert "\n" not in str(raised.value) and model.training


def test_a_run_is_refused_before_its_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", never)
    outcome = do(*TINY, "dataset.image_size=12", f"model._target_={HERE}.narrow", root=tmp_path)
    assert (
        outcome.code == 2 and "the network does not take the inputs of synthetic, [1, 12, 12]" in outcome.lines[-1]
    )


def narrow(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))
