"""Which parameters are quantized, under which names, and what is registered beside them."""

import pytest
import torch
from helpers.quant_models import Bag, Net, Tied, TwoNames, same_bits, seen_weights
from helpers.quant_reference import MB_BITS, Setting, named_logits, real_bits, stored_diffq
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer

ALL = {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight", "head.bias"}
KINDS = [DiffQuantizer, UniformQuantizer, LSQ]


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_min_size_and_not_as_many(kind):
    model = Bag((99,), (100,), (101,), (10, 11))
    quantizer = kind(model, min_size=100 * 4 / 2**20)
    assert list(quantizer.quantized_names) == ["w2", "w3"]
    assert list(quantizer.float_names) == ["w0", "w1"]


@pytest.mark.parametrize("kind", KINDS)
def test_min_size_zero_takes_everything_that_has_entries(kind):
    model = Bag((1,), (), (0,), (3, 0))
    quantizer = kind(model, min_size=0)
    assert set(quantizer.quantized_names) == {"w0", "w1"}
    assert set(quantizer.float_names) == {"w2", "w3"}
    assert [tuple(v.shape) for v in model.eval()()] == [(1,), (), (0,), (3, 0)]


def test_the_default_min_size_is_a_hundredth_of_a_megabyte():
    quantizer = DiffQuantizer(Bag((2621,), (2622,)))  # 0.01 * 2^20 / 4 = 2621.44
    assert list(quantizer.quantized_names) == ["w1"]


@pytest.mark.parametrize(
    ("exclude", "floats"),
    [
        (["bias"], {"conv.bias", "norm.bias", "head.bias"}),
        (["*.bias"], {"conv.bias", "norm.bias", "head.bias"}),
        (("norm.*",), {"norm.weight", "norm.bias"}),
        (["head.weight", "conv.b*"], {"head.weight", "conv.bias"}),
        (["norm"], set()),
        (["*ea*"], {"head.weight", "head.bias"}),
        (["?onv.weight"], {"conv.weight"}),
        (["[ch]*.weight"], {"conv.weight", "head.weight"}),
        (["WEIGHT"], set()),
        (["weigh"], set()),
        (["*"], ALL),
        ([], set()),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_exclude_matches_the_dotted_name_or_its_last_part(kind, exclude, floats):
    quantizer = kind(Net(), min_size=0, exclude=exclude)
    assert set(quantizer.float_names) == floats
    assert set(quantizer.quantized_names) == ALL - floats


@pytest.mark.parametrize(("suffix", "group_size", "groups"), [("_diffq", 5, 33), ("_bits", 0, 1), ("_x", 1, 162)])
def test_logits_stand_beside_the_weight(suffix, group_size, groups):
    model = Net()
    names = list(model.state_dict())
    DiffQuantizer(model, min_size=0, suffix=suffix, group_size=group_size)
    logits = getattr(model.conv, "weight" + suffix)
    assert isinstance(logits, nn.Parameter) and logits.requires_grad
    assert logits.shape == (groups,) and logits.dtype == torch.float32
    assert set(model.state_dict()) == set(names) | {name + suffix for name in ALL}
    assert dict(model.named_parameters())["conv.weight" + suffix] is logits
    model.to(torch.float64)
    assert getattr(model.conv, "weight" + suffix).dtype == torch.float64


@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("limits", [(2, 15, 8), (1, 15, 14.9), (1.25, 3.5, 1.5), (7, 8, 7.5)])
def test_logits_start_at_init_bits(param, limits):
    low, high, init = limits
    model = Net()
    quantizer = DiffQuantizer(
        model,
        min_size=0,
        group_size=5,
        min_bits=low,
        max_bits=high,
        init_bits=init,
        param=param,
        extra_bits=1,
    )
    setting = Setting(5, low, high, param)
    for logits in named_logits(model).values():
        torch.testing.assert_close(real_bits(logits, setting), torch.full_like(logits, init).double())
    assert quantizer.bits().keys() == ALL


def test_bits_of_every_group():
    setting = Setting(group_size=5, param="noise")
    model = Net()
    quantizer = DiffQuantizer(model, **setting.kwargs())
    for logits in named_logits(model).values():
        nn.init.normal_(logits, std=2)
    bits = quantizer.bits()
    assert list(bits) == list(quantizer.quantized_names)
    for name, logits in named_logits(model).items():
        assert bits[name].shape == logits.shape
        torch.testing.assert_close(
            bits[name].double(), real_bits(logits, setting), rtol=1e-5, atol=0, check_dtype=False
        )


@pytest.mark.parametrize("kind", KINDS)
def test_tied_weights_are_found_once(kind):
    model = Tied()
    quantizer = kind(model, min_size=0)
    assert list(quantizer.quantized_names) == ["embed.weight", "mid.weight", "mid.bias", "norm.weight"]
    assert dict(quantizer.tied_names) == {"out.weight": "embed.weight", "norm.bias": "mid.bias"}
    assert list(quantizer.float_names) == []


def test_tied_weights_have_one_set_of_logits():
    model = Tied()
    DiffQuantizer(model, min_size=0)
    assert set(named_logits(model)) == {"embed.weight", "mid.weight", "mid.bias", "norm.weight"}
    model.eval()
    _, seen = seen_weights(model, torch.arange(4))
    assert same_bits(seen["embed.weight"], seen["out.weight"])


def test_tied_weights_have_bits_of_their_own_without_detection():
    model, setting = Tied(), Setting(init_bits=5)
    quantizer = DiffQuantizer(model, **setting.kwargs(), detect_bound=False)
    assert set(quantizer.quantized_names) == {n for n, _ in model.named_parameters(remove_duplicate=False)} - {
        n + "_diffq" for n in quantizer.quantized_names
    }
    assert dict(quantizer.tied_names) == {}
    nn.init.constant_(model.out.weight_diffq, -3)
    _, seen = seen_weights(model.eval(), torch.arange(4))
    assert model.out.weight is model.embed.weight
    assert same_bits(seen["embed.weight"], stored_diffq(model.embed.weight, model.embed.weight_diffq, setting))
    assert same_bits(seen["out.weight"], stored_diffq(model.out.weight, model.out.weight_diffq, setting))
    assert not torch.equal(seen["out.weight"], seen["embed.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_float_tensor_is_counted_once(kind):
    quantizer = kind(Tied(), min_size=4 * 20 / 2**20, exclude=["mid.weight"])
    assert set(quantizer.quantized_names) == {"embed.weight"}
    assert set(quantizer.float_names) == {"mid.weight", "mid.bias", "norm.weight"}
    floats = (49 + 7 + 7) * 32
    all_float = kind(Tied(), min_size=1)
    assert all_float.true_model_size() * MB_BITS == floats + 77 * 32


def test_gradients_of_tied_weights_add_up_in_one_tensor():
    model = TwoNames()
    DiffQuantizer(model, min_size=0, init_bits=3).no_optimizer()
    x = torch.randn(4, 6)
    out, seen = seen_weights(model, x)
    out.square().sum().backward()
    shared = seen["a.weight"].detach().clone().requires_grad_()
    (torch.relu(x @ shared.T) @ shared.T).square().sum().backward()
    eps_free = model.a.weight.grad - shared.grad  # what is left is the share of the extremes
    inner = (model.a.weight != model.a.weight.max()) & (model.a.weight != model.a.weight.min())
    torch.testing.assert_close(eps_free[inner], torch.zeros_like(eps_free[inner]), rtol=0, atol=1e-4)


def test_a_module_used_under_two_names():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.no_optimizer()
    assert set(quantizer.quantized_names) == {"0.weight", "0.bias"}
    model(torch.randn(2, 6)).sum().backward()
    assert layer.weight_diffq.grad.abs().sum() > 0
    assert set(model.state_dict()) >= {"0.weight_diffq", "0.bias_diffq"}
