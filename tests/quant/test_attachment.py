"""quantize/unquantize, enter_quantize, noisy, detach, and what a quantizer says about itself."""

import copy

import pytest
import torch
from helpers.quant_models import (
    Bag,
    Bombed,
    Net,
    Tied,
    assert_same,
    images,
    left_behind,
    same_bits,
    seen_weights,
    snapshot,
)
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, quantizer_of

KINDS = [DiffQuantizer, UniformQuantizer, LSQ]
INPUTS = {Net: images, Tied: lambda: torch.arange(4)}
HALF = {"min_size": 4 * 20 / 2**20, "float16": True}


def make(kind, build=Net, **keywords):
    model = build()
    quantizer = kind(model, **({"min_size": 0} | keywords))
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    return model, quantizer


def stored_of(model):
    """What a state_dict must show after quantize()."""
    training = model.training
    _, seen = seen_weights(model.eval(), images())
    model.train(training)
    return {name: value.detach().clone() for name, value in (dict(model.state_dict()) | seen).items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keywords", [{}, HALF])
def test_quantize_puts_the_stored_values_into_the_parameters_and_back(kind, keywords):
    model, quantizer = make(kind, **keywords)
    floats, stored, params = snapshot(model), stored_of(model), dict(model.named_parameters())
    for _ in range(2):  # idempotent
        quantizer.quantize()
        assert_same(snapshot(model), stored)
    assert not torch.equal(stored["head.weight"], floats["head.weight"])
    assert same_bits(model.eval()(images()), model(images()))
    _, seen = seen_weights(model, images())
    assert_same(seen, {name: stored[name] for name in seen})
    assert_same(snapshot(model), stored)
    for _ in range(2):
        quantizer.unquantize()
        assert_same(snapshot(model), floats)
    assert all(p is params[name] for name, p in model.named_parameters())
    assert left_behind(model) == []


@pytest.mark.parametrize("kind", KINDS)
def test_unquantize_alone_does_nothing(kind):
    model, quantizer = make(kind)
    floats = snapshot(model)
    quantizer.unquantize()
    assert_same(snapshot(model), floats)


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_forward_brings_the_float_weights_back(kind):
    model, quantizer = make(kind)
    model.norm.momentum = 0.0
    floats = snapshot(model)
    quantizer.quantize()
    model.train()(images())
    floats["norm.num_batches_tracked"] += 1
    assert_same(snapshot(model), floats)


@pytest.mark.parametrize("kind", KINDS)
def test_enter_quantize_nests(kind):
    model, quantizer = make(kind)
    floats, stored = snapshot(model), stored_of(model)
    with quantizer.enter_quantize():
        with quantizer.enter_quantize():
            assert_same(snapshot(model), stored)
        assert_same(snapshot(model), stored)
    assert_same(snapshot(model), floats)
    quantizer.quantize()
    with quantizer.enter_quantize():
        assert_same(snapshot(model), stored)
    assert_same(snapshot(model), stored)
    quantizer.unquantize()
    assert_same(snapshot(model), floats)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_enter_quantize_ends_with_an_exception(error):
    model, quantizer = make(DiffQuantizer)
    floats = snapshot(model)
    with pytest.raises(error), quantizer.enter_quantize():
        raise error
    assert_same(snapshot(model), floats)


def test_noisy_holds_one_draw_for_all_forwards():
    model, quantizer = make(DiffQuantizer, two_tensors)
    floats = snapshot(model)
    with quantizer.noisy():
        first, second = model(), model()
        assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))
        assert_same(snapshot(model), floats)
        (first[0].square().sum() + second[0].sum()).backward()
    assert left_behind(model) == []
    assert not torch.equal(first[0], model.w0)
    assert model.w0_diffq.grad.abs().min() > 0
    with quantizer.noisy():
        assert not torch.equal(model()[0], first[0])
    assert not torch.equal(model()[0], model()[0])


def test_a_copy_inside_noisy_is_refused():
    """It would take the noise away from what follows."""
    model, quantizer = make(DiffQuantizer, two_tensors)
    with quantizer.noisy():
        first = model()
        with pytest.raises(RuntimeError, match="inside noisy"):
            copy.deepcopy(model)
        assert all(same_bits(a, b) for a, b in zip(first, model(), strict=True))


def two_tensors():
    return Bag((20,), (4, 5))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("inside", [True, False])
def test_noisy_ends_with_an_exception(error, inside):
    model, quantizer = make(DiffQuantizer, Bombed)
    floats = snapshot(model)
    with pytest.raises(error), quantizer.noisy():
        if inside:
            model.bomb.error = error
            model(torch.randn(2, 5))
        raise error
    assert left_behind(model) == []
    assert_same(snapshot(model), floats)


def test_noisy_and_a_plain_forward_agree_for_one_seed():
    model, quantizer = make(DiffQuantizer)
    outs = []
    for hold in (True, False):
        torch.manual_seed(4)
        model.zero_grad()
        if hold:
            with quantizer.noisy():
                model(images()).square().sum().backward()
        else:
            model(images()).square().sum().backward()
        outs.append([p.grad.clone() for p in model.parameters()])
    assert all(same_bits(a, b) for a, b in zip(*outs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("build", [Net, Tied])
def test_detach_gives_the_model_back(kind, quantized, build):
    model = build()
    before, params = snapshot(model), dict(model.named_parameters(remove_duplicate=False))
    attributes = [set(vars(module)) for module in model.modules()]
    quantizer = kind(model, **HALF)
    assert quantizer_of(model) is quantizer
    model.eval()(INPUTS[build]())
    if quantized:
        quantizer.quantize()
    quantizer.detach()
    assert quantizer_of(model) is None
    assert_same(snapshot(model), before)
    assert list(snapshot(model)) == list(before)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(params) and all(after[name] is params[name] for name in params)
    for module in model.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._state_dict_hooks)
        assert not any(hooks)
    assert [set(vars(module)) for module in model.modules()] == attributes
    kind(model, **HALF)  # another one is welcome


def test_after_detach_a_forward_is_plain():
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    DiffQuantizer(model, min_size=0, init_bits=3).detach()
    assert same_bits(model(images()), plain(images()))
    assert same_bits(model.eval()(images()), plain.eval()(images()))


@pytest.mark.parametrize("kind", KINDS)
def test_repr_is_short_and_says_what_it_is(kind):
    text = repr(make(kind)[1])
    assert kind.__name__ in text
    assert len(text) < 300 and "\n" not in text


@pytest.mark.parametrize("kind", [UniformQuantizer, LSQ])
@pytest.mark.parametrize("bits", [2, 5])
def test_bits_of_a_fixed_width(kind, bits):
    quantizer = kind(Net(), bits=bits, **HALF)
    found = quantizer.bits()
    assert list(found) == list(quantizer.quantized_names) == ["conv.weight", "head.weight"]
    assert all((value == bits).all() and value.numel() == 1 for value in found.values())


def test_quantizer_of_a_plain_model():
    assert quantizer_of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_float_state_dict_goes_through_a_quantized_model(kind):
    """state_dict holds floats and logits, and loads into another model with a quantizer."""
    model, _ = make(kind)
    other, _ = make(kind)
    other.load_state_dict(model.state_dict())
    assert_same(snapshot(other), snapshot(model))
    assert same_bits(other.eval()(images()), model.eval()(images()))


def test_repr_counts_each_entry_once():
    model = Bag((10_000,), (10,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=0)
    with torch.no_grad():
        model.w0_diffq.fill_(-50.0)
        model.w1_diffq.fill_(50.0)
    assert "mean 2.01 bits" in repr(quantizer)
