"""Quantized states: plain tensors and numbers, restored bit for bit into a fresh model."""

import io

import pytest
import torch
from helpers.quant_models import (
    Bag,
    Net,
    Tied,
    assert_same,
    images,
    same_bits,
    scramble,
    seen_weights,
    set_bits,
    snapshot,
)
from helpers.quant_reference import Setting, logits_for, named_logits, stored_bits
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, quantizer_of, restore_quantized_state

SOME_FLOATS = 4 * 20 / 2**20


def diffq(**keywords):
    setting = Setting(min_bits=1, **keywords)

    def attach(model):
        quantizer = DiffQuantizer(model, **setting.kwargs())
        set_bits(model, setting)
        return quantizer

    return attach


MAKERS = {
    "diffq": diffq(),
    "diffq_groups_of_8": diffq(group_size=8),
    "diffq_groups_of_5_noise": diffq(group_size=5, param="noise"),
    "diffq_whole": diffq(group_size=0),
    "diffq_extra": diffq(group_size=4, extra_bits=2.5),
    "diffq_float": diffq(group_size=4, min_size=SOME_FLOATS),
    "diffq_float16": diffq(group_size=4, min_size=SOME_FLOATS, float16=True),
    "diffq_nothing": diffq(min_size=1),
    "uniform_8": lambda m: UniformQuantizer(m, min_size=0),
    "uniform_1": lambda m: UniformQuantizer(m, bits=1, min_size=0),
    "uniform_15": lambda m: UniformQuantizer(m, bits=15, min_size=0),
    "uniform_2.5": lambda m: UniformQuantizer(m, bits=2.5, min_size=SOME_FLOATS, float16=True),
    "uniform_1.2": lambda m: UniformQuantizer(m, bits=1.2, min_size=0, qat=True),
    "lsq_2": lambda m: LSQ(m, bits=2, min_size=0),
    "lsq_8": lambda m: LSQ(m, bits=8, min_size=SOME_FLOATS, float16=True),
    "lsq_15": lambda m: LSQ(m, bits=15, min_size=0),
}
NETWORKS = {
    "net": (Net, images),
    "tied": (Tied, lambda: torch.arange(11)),
    "norm3": (
        lambda: nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3)),
        lambda: torch.randn(4, 6),
    ),
}


def through_a_file(state):
    """Saved and loaded with the safe default of torch.load."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def parameters_and_buffers(model):
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("maker", MAKERS)
def test_round_trip_into_a_fresh_model(maker, network, packed):
    build, inputs = NETWORKS[network]
    model, x = scramble(build()), inputs()
    quantizer = MAKERS[maker](model)
    before = snapshot(model)
    out, seen = seen_weights(model.eval(), x)
    stored = {
        name: value.detach().clone() for name, value in seen.items() if "_diffq" not in name and "_lsq" not in name
    }
    stored |= {name: value.clone() for name, value in model.named_buffers()}
    state = through_a_file(quantizer.get_quantized_state(packed=packed))
    assert_same(snapshot(model), before)

    plain = build()
    params = dict(plain.named_parameters())
    restore_quantized_state(plain, state)
    assert all(p is params[name] and p.requires_grad for name, p in plain.named_parameters())
    assert quantizer_of(plain) is None
    assert_same(parameters_and_buffers(plain), stored)
    assert same_bits(plain.eval()(x), out)

    other = build()
    second = MAKERS[maker](other)
    for logits in named_logits(other).values():
        nn.init.zeros_(logits)
    second.restore_quantized_state(state)
    again, seen = seen_weights(other.eval(), x)
    assert_same({name: seen[name] for name in stored if name in seen}, {n: stored[n] for n in stored if n in seen})
    assert same_bits(again, out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("maker", ["diffq_groups_of_8", "uniform_2.5", "lsq_8"])
def test_round_trip_of_other_dtypes(maker, dtype):
    model = scramble(Net()).to(dtype)
    quantizer = MAKERS[maker](model)
    out, seen = seen_weights(model.eval(), images().to(dtype))
    plain = Net().to(dtype)
    restore_quantized_state(plain, through_a_file(quantizer.get_quantized_state()))
    assert_same(dict(plain.named_parameters()), {name: seen[name] for name, _ in plain.named_parameters()})
    assert same_bits(plain.eval()(images().to(dtype)), out)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    group_size=st.integers(0, 12),
    widths=st.lists(st.integers(1, 15), min_size=1, max_size=9),
    packed=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_round_trip_of_any_shape_and_widths(shape, group_size, widths, packed, seed):
    torch.manual_seed(seed)
    model, setting = Bag(tuple(shape), (17,)), Setting(group_size=group_size, min_bits=1)
    quantizer = DiffQuantizer(model, **setting.kwargs())
    for logits in named_logits(model).values():
        cycle = (widths * logits.numel())[: logits.numel()]
        with torch.no_grad():
            logits.copy_(logits_for([float(n) for n in cycle], setting))
        assert stored_bits(logits, setting) == cycle
    plain = Bag(tuple(shape), (17,))
    restore_quantized_state(plain, through_a_file(quantizer.get_quantized_state(packed=packed)))
    for value, expected in zip(plain(), model.eval()(), strict=True):
        assert same_bits(value, expected)


def leaves(value):
    if isinstance(value, dict):
        assert all(isinstance(key, str | int) for key in value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_state_is_a_dict_of_tensors_and_plain_values(maker, packed):
    state = MAKERS[maker](scramble(Net())).get_quantized_state(packed=packed)
    assert type(state) is dict
    for leaf in leaves(state):
        assert type(leaf) in (torch.Tensor, str, int, float, bool, type(None)), type(leaf)
        if isinstance(leaf, torch.Tensor):
            assert not leaf.requires_grad


@pytest.mark.parametrize("maker", ["diffq_float", "uniform_8", "lsq_8"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_state_is_a_copy(maker, packed):
    model = scramble(Net())
    state = MAKERS[maker](model).get_quantized_state(packed=packed)
    first, second = Net(), Net()
    restore_quantized_state(first, state)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers(), *first.parameters(), *first.buffers()]:
            tensor.zero_()
    restore_quantized_state(second, state)
    assert all(p.abs().sum() > 0 for p in second.parameters())
    assert second.norm.running_var.min() > 0


def test_a_state_taken_while_quantized_is_the_same():
    model = scramble(Net())
    quantizer = MAKERS["diffq_float16"](model)
    state = quantizer.get_quantized_state()
    with quantizer.enter_quantize():
        inside = quantizer.get_quantized_state()
    for a, b in zip(leaves(state), leaves(inside), strict=True):
        assert same_bits(a, b) if torch.is_tensor(a) else a == b


def test_a_restored_quantizer_trains_on():
    model = scramble(Net())
    state = MAKERS["diffq_groups_of_8"](model).get_quantized_state()
    other = Net()
    quantizer = MAKERS["diffq_groups_of_8"](other)
    quantizer.no_optimizer()
    quantizer.restore_quantized_state(state)
    out = other.train()(images())
    out.sum().backward()
    assert out.isfinite().all()
    assert not torch.equal(other(images()), out)


def test_what_was_restored_is_stored_again_as_the_same():
    """Exact sizes, widths and values survive a second trip."""
    model, other, plain = scramble(Net()), Net(), Net()
    quantizer, second = (MAKERS["diffq_groups_of_8"](each) for each in (model, other))
    for logits in named_logits(other).values():
        nn.init.zeros_(logits)
    second.restore_quantized_state(quantizer.get_quantized_state())
    assert second.true_model_size() == quantizer.true_model_size()
    restore_quantized_state(plain, second.get_quantized_state())
    assert same_bits(plain.eval()(images()), model.eval()(images()))
