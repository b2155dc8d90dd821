"""Every wrong argument is refused at creation, by name and value, and leaves the model as it was."""

import inspect
import re

import pytest
import torch
from helpers.quant_models import Net, assert_same, snapshot

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer

SIGNATURES = {
    DiffQuantizer: "min_size=0.01, float16=False, group_size=1, min_bits=2, max_bits=15, param='bits', "
    "noise='gaussian', init_bits=8, extra_bits=0, suffix='_diffq', exclude=(), detect_bound=True",
    UniformQuantizer: "bits=8.0, min_size=0.01, float16=False, qat=False, exclude=(), detect_bound=True, "
    "per_channel=False, ranges='minmax'",
    LSQ: "bits=8, min_size=0.01, float16=False, suffix='_lsq', exclude=(), detect_bound=True, per_channel=False",
}
NAN, INF = float("nan"), float("inf")

COMMON = [
    ({"min_size": -0.01}, "min_size", "-0.01"),
    ({"min_size": NAN}, "min_size", "nan"),
]
DIFFQ = [
    ({"min_bits": -1}, "min_bits", "-1"),
    ({"min_bits": 9}, "min_bits", "9"),
    ({"min_bits": 8}, "min_bits", "8"),
    ({"min_bits": 9, "init_bits": 12, "max_bits": 10}, "init_bits", "12"),
    ({"min_bits": NAN}, "min_bits", "nan"),
    ({"max_bits": 16}, "max_bits", "16"),
    ({"max_bits": 15.01}, "max_bits", "15.01"),
    ({"max_bits": 8}, "max_bits", "8"),
    ({"max_bits": 4}, "max_bits", "4"),
    ({"max_bits": NAN}, "max_bits", "nan"),
    ({"max_bits": INF}, "max_bits", "inf"),
    ({"init_bits": 2}, "init_bits", "2"),
    ({"init_bits": 15}, "init_bits", "15"),
    ({"init_bits": 20}, "init_bits", "20"),
    ({"init_bits": NAN}, "init_bits", "nan"),
    ({"init_bits": "8"}, "init_bits", "8"),
    ({"extra_bits": -1}, "extra_bits", "-1"),
    ({"extra_bits": -0.5}, "extra_bits", "-0.5"),
    ({"extra_bits": NAN}, "extra_bits", "nan"),
    ({"extra_bits": INF}, "extra_bits", "inf"),
    ({"group_size": -1}, "group_size", "-1"),
    ({"group_size": 1.5}, "group_size", "1.5"),
    ({"group_size": "8"}, "group_size", "8"),
    ({"noise": "typo"}, "noise", "typo"),
    ({"noise": None}, "noise", "None"),
    ({"noise": "Gaussian"}, "noise", "Gaussian"),
    ({"param": "typo"}, "param", "typo"),
    ({"param": "gaussian"}, "param", "gaussian"),
    ({"suffix": ""}, "suffix", ""),
    ({"suffix": ".bits"}, "suffix", ".bits"),
]
UNIFORM = [
    ({"bits": 0}, "bits", "0"),
    ({"bits": 0.5}, "bits", "0.5"),
    ({"bits": 0.99}, "bits", "0.99"),
    ({"bits": -3}, "bits", "-3"),
    ({"bits": 16}, "bits", "16"),
    ({"bits": 15.1}, "bits", "15.1"),
    ({"bits": NAN}, "bits", "nan"),
    ({"bits": INF}, "bits", "inf"),
    ({"ranges": "largest"}, "ranges", "largest"),
]
STEPS = [
    ({"bits": 1}, "bits", "1"),
    ({"bits": 0}, "bits", "0"),
    ({"bits": 16}, "bits", "16"),
    ({"bits": NAN}, "bits", "nan"),
]
CASES = [(DiffQuantizer, *case) for case in COMMON + DIFFQ]
CASES += [(UniformQuantizer, *case) for case in COMMON + UNIFORM]
CASES += [(LSQ, *case) for case in COMMON + STEPS]


@pytest.mark.parametrize("kind", SIGNATURES)
def test_names_order_and_defaults_of_the_arguments(kind):
    parameters = list(inspect.signature(kind).parameters.values())[1:]  # without the model
    assert ", ".join(f"{p.name}={p.default!r}" for p in parameters) == SIGNATURES[kind]


@pytest.mark.parametrize(("kind", "keywords", "name", "value"), CASES)
def test_wrong_argument(kind, keywords, name, value):
    model = Net()
    before = snapshot(model)
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        kind(model, **keywords)
    assert value in str(caught.value)
    assert_same(snapshot(model), before)
    assert not model._forward_pre_hooks and not model._forward_hooks
    kind(model)  # and nothing stands in the way of a second try


@pytest.mark.parametrize(
    "keywords",
    [
        {"min_bits": 1, "max_bits": 15, "init_bits": 1.001},
        {"min_bits": 14, "init_bits": 14.5, "max_bits": 15},
        {"min_bits": 2.5, "init_bits": 2.75, "max_bits": 3.1},
        {"extra_bits": 0.5},
        {"extra_bits": 30},
        {"group_size": 10**9},
        {"min_size": 0},
        {"min_size": 10**6},
    ],
)
@pytest.mark.parametrize("param", ["bits", "noise"])
def test_allowed_at_the_edge(keywords, param):
    model = Net()
    quantizer = DiffQuantizer(model, param=param, **({"min_size": 0} | keywords))
    quantizer.no_optimizer()
    out = model(torch.randn(2, 3, 6, 6))
    (out.sum() + quantizer.model_size()).backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(torch.randn(2, 3, 6, 6)).isfinite().all()


@pytest.mark.parametrize("bits", [1, 1.5, 15, 8.0])
def test_allowed_widths_of_uniform(bits):
    quantizer = UniformQuantizer(Net(), bits=bits, min_size=0)
    assert {float(width) for widths in quantizer.bits().values() for width in widths} == {float(bits)}


@pytest.mark.parametrize("bits", [2, 15])
def test_allowed_widths_of_lsq(bits):
    quantizer = LSQ(Net(), bits=bits, min_size=0)
    assert {float(width) for widths in quantizer.bits().values() for width in widths} == {float(bits)}


@pytest.mark.parametrize("first", [DiffQuantizer, UniformQuantizer, LSQ])
@pytest.mark.parametrize("second", [DiffQuantizer, UniformQuantizer, LSQ])
def test_a_second_quantizer_is_refused(first, second):
    model = Net()
    first(model, min_size=0)
    names = list(model.state_dict())
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)quantizer"):
        second(model, min_size=0)
    assert list(model.state_dict()) == names
    assert model.eval()(torch.randn(2, 3, 6, 6)).isfinite().all()


def test_a_second_quantizer_with_another_suffix_is_refused():
    model = Net()
    DiffQuantizer(model, min_size=0)
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)quantizer"):
        DiffQuantizer(model, min_size=0, suffix="_other")


def test_a_second_quantizer_is_refused_when_nothing_is_quantized():
    model = Net()
    DiffQuantizer(model, min_size=100)
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)quantizer"):
        DiffQuantizer(model, min_size=0)


@pytest.mark.parametrize("taken", [torch.nn.Parameter(torch.zeros(2)), torch.zeros(2), "anything"])
def test_a_suffix_that_makes_a_name_in_use_is_refused(taken):
    model = Net()
    model.head.weight_diffq = taken
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"suffix.*_diffq.*head\.weight_diffq"):
        DiffQuantizer(model, min_size=0)
    assert_same(snapshot(model), before)
    DiffQuantizer(model, min_size=0, suffix="_bits")
