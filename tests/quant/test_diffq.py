"""Evaluation computes with exactly the weights that would be stored, and leaves nothing behind."""

from dataclasses import replace

import pytest
import torch
from helpers.quant_models import (
    Bag,
    Net,
    assert_same,
    images,
    left_behind,
    same_bits,
    seen_weights,
    set_bits,
    snapshot,
)
from helpers.quant_reference import Setting, logits_for, named_logits, named_weights, stored_bits, stored_diffq
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from diffq_exp.quant import DiffQuantizer

SHAPES = [(40,), (7, 9), (5, 3, 3, 3), (1,), (), (128, 33)]


def quantized_bag(setting, *shapes, seed=0):
    model = Bag(*shapes)
    quantizer = DiffQuantizer(model, **setting.kwargs())
    set_bits(model, setting, seed=seed)
    return model.eval(), quantizer


def assert_stored(model, setting, dtype=torch.float32):
    logits = named_logits(model)
    for name, value in zip(model.names, model(), strict=True):
        assert value.dtype == dtype
        assert same_bits(value, stored_diffq(getattr(model, name), logits[name], setting)), name


@pytest.mark.parametrize("group_size", [0, 1, 3, 8, 1000])
@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("extra_bits", [0, 0.25, 3, 20])
def test_eval_equals_the_reference_bit_for_bit(group_size, param, extra_bits):
    setting = Setting(group_size=group_size, param=param, extra_bits=extra_bits, min_bits=1)
    model, _ = quantized_bag(setting, *SHAPES)
    widths = {n for logits in named_logits(model).values() for n in stored_bits(logits, setting)}
    assert widths == {15} if extra_bits == 20 else 15 in widths
    if group_size == 1 and extra_bits == 0:
        assert widths == set(range(1, 16))
    assert_stored(model, setting)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    group_size=st.integers(0, 20),
    param=st.sampled_from(["bits", "noise"]),
    extra_bits=st.sampled_from([0, 0.1, 1]),
    limits=st.sampled_from([(1, 15, 8), (2, 15, 8), (1.5, 9.75, 3.25), (13, 15, 14)]),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 10**6),
)
def test_eval_equals_the_reference_for_any_shape(shape, group_size, param, extra_bits, limits, exponent, seed):
    low, high, init = limits
    setting = Setting(group_size, low, high, param, init_bits=init, extra_bits=extra_bits)
    torch.manual_seed(seed)
    model = Bag(tuple(shape))
    DiffQuantizer(model, **setting.kwargs())
    with torch.no_grad():
        model.w0.mul_(2.0**exponent).add_(seed % 3)
    set_bits(model, setting, seed=seed, low=int(low) + 1, high=int(high))
    assert_stored(model.eval(), setting)


def test_half_way_bits_round_to_even():
    for high, even in ((15, 8), (13, 8), (11, 6)):  # b at logit 0: 8.5, 7.5, 6.5
        setting = Setting(max_bits=high, init_bits=5)
        model, _ = quantized_bag(setting, (50,))
        nn.init.zeros_(model.w0_diffq)
        assert stored_bits(model.w0_diffq, setting) == [even] * 50
        assert_stored(model, setting)


def test_half_way_levels_round_to_even():
    setting = Setting(group_size=0, min_bits=1)
    model, _ = quantized_bag(setting, (5,))
    with torch.no_grad():
        model.w0.copy_(torch.tensor([0.0, 0.5, 1.5, 2.5, 3.0]))
        model.w0_diffq.copy_(logits_for([2.0], setting))
    assert model()[0].tolist() == [0.0, 0.0, 2.0, 2.0, 3.0]


def test_one_bit_keeps_only_the_extremes():
    model, _ = quantized_bag(Setting(min_bits=1, group_size=0), (100,))
    nn.init.constant_(model.w0_diffq, -40)
    value, weight = model()[0], model.w0
    assert set(value.tolist()) == {weight.min().item(), (weight.max() - weight.min() + weight.min()).item()}


def test_eval_of_a_network_is_the_network_with_stored_weights():
    setting = Setting(group_size=4, min_bits=1)
    model, plain = Net(), Net()
    DiffQuantizer(model, **setting.kwargs())
    set_bits(model, setting)
    logits = named_logits(model)
    stored = {name: stored_diffq(p, logits[name], setting) for name, p in named_weights(model).items()}
    plain.load_state_dict(dict(model.named_buffers()) | stored)
    x, y = images().requires_grad_(), images().requires_grad_()
    out, seen = seen_weights(model.eval(), x)
    assert_same({name: seen[name] for name in stored}, stored)
    assert same_bits(out, plain.eval()(y))
    out.square().sum().backward()
    plain(y).square().sum().backward()
    assert same_bits(x.grad, y.grad)


def test_eval_leaves_the_float_weights_untouched():
    model = Net()
    DiffQuantizer(model, **Setting(group_size=8, float16=True).kwargs())
    before, params = snapshot(model), dict(model.named_parameters())
    model.eval()
    outs = [model(images()) for _ in range(3)]
    assert all(same_bits(out, outs[0]) for out in outs)
    assert left_behind(model) == []
    assert_same(snapshot(model), before)
    assert all(p is params[name] for name, p in model.named_parameters())
    model.train()
    assert_same(snapshot(model), before)


def _scale(model):
    with torch.no_grad():
        model.w0.mul_(1.5)


def _load(model):
    model.load_state_dict({name: value * 0.7 for name, value in model.state_dict().items()})


def _sgd(model):
    model.w0.grad = torch.randn_like(model.w0)
    torch.optim.SGD([model.w0], lr=0.5).step()


def _logit(model):
    with torch.no_grad():
        model.w0_diffq[3:].sub_(2)


def _adam_on_logits(model):
    model.w0_diffq.grad = torch.randn_like(model.w0_diffq)
    torch.optim.Adam([model.w0_diffq], lr=1.0).step()


def _new_data(model):
    model.w0.data = torch.randn_like(model.w0)


def _new_logit_data(model):
    model.w0_diffq.data = model.w0_diffq.data - 1.7


def _one_entry(model):
    with torch.no_grad():
        model.w0[2, 3] = 0.123


@pytest.mark.parametrize(
    "change", [_scale, _load, _sgd, _logit, _adam_on_logits, _new_data, _new_logit_data, _one_entry]
)
@pytest.mark.parametrize("grad", [True, False])
def test_a_change_is_seen_by_the_next_eval(change, grad):
    setting = Setting(group_size=2)
    model, _ = quantized_bag(setting, (6, 8), (5,))
    with torch.set_grad_enabled(grad):
        before = model()[0].clone()
        with torch.enable_grad():
            change(model)
        assert_stored(model, setting)
        assert not torch.equal(model()[0], before)


def test_writing_through_data_between_evals_with_training_between_is_seen():
    setting = Setting(group_size=2, init_bits=4)
    model, quantizer = quantized_bag(setting, (6, 8))
    quantizer.no_optimizer()
    model()
    model.train()()
    model.w0.data.mul_(1.5)  # leaves no trace in the version counter
    model.w0_diffq.data.sub_(2)
    model.eval()
    assert_stored(model, setting)


def test_cached_weights_outlive_inference_mode():
    setting = Setting(group_size=4)
    model = Net()
    DiffQuantizer(model, **setting.kwargs())
    model.eval()
    with torch.inference_mode():
        first = model(images())
    x = images().requires_grad_()
    out = model(x)
    out.sum().backward()
    assert same_bits(out, first.clone())
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_eval_follows_a_change_of_dtype(dtype):
    setting = Setting(group_size=4, min_bits=1)
    model, _ = quantized_bag(setting, (6, 8))
    model()
    model.to(dtype)
    nn.init.constant_(model.w0_diffq, 0.25)
    assert_stored(model, setting, dtype)


@pytest.mark.parametrize("training", [True, False])
def test_the_root_decides_between_training_and_evaluation(training):
    setting = Setting(init_bits=3)
    model = Net()
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    model.train(training)
    model.head.train(not training)
    _, seen = seen_weights(model, images())
    stored = stored_diffq(model.head.weight, model.head.weight_diffq, setting)
    assert same_bits(seen["head.weight"], stored) is not training


def test_float16_entries_are_seen_as_float16_in_eval_only():
    setting = replace(Setting(), float16=True, min_size=4 * 20 / 2**20)
    model = Bag((5, 9), (11,))
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    weight = model.w1.detach().clone()
    assert same_bits(model.eval()()[1], weight.half().float())
    assert not torch.equal(weight.half().float(), weight)
    assert same_bits(model.train()()[1], weight)
    assert same_bits(model.w1, weight)
