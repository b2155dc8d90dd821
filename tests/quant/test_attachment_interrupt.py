"""However a forward ends, noise and rounding do not stay in the model, nor in what is saved of it."""

import copy
import io
import pickle

import pytest
import torch
from helpers.quant_models import Bombed, assert_same, left_behind, owners, same_bits, seen_weights, snapshot
from helpers.quant_reference import Setting, named_logits, stored_diffq
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, quantizer_of, restore_quantized_state

SETTING = Setting(group_size=4, init_bits=3)


def make(kind=DiffQuantizer):
    model = Bombed()
    keywords = {DiffQuantizer: SETTING.kwargs(), UniformQuantizer: {"qat": True}, LSQ: {"bits": 3}}[kind]
    quantizer = kind(model, **({"min_size": 0} | keywords))
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    return model, quantizer


def blow(model, error, training):
    model.train(training)
    model.bomb.error = error
    with pytest.raises(error):
        model(torch.randn(2, 5))
    model.bomb.error = None


kinds = pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
modes = pytest.mark.parametrize("training", [True, False])


@kinds
@modes
@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_exception(kind, training, error):
    model, _ = make(kind)
    floats, params = snapshot(model), dict(model.named_parameters())
    blow(model, error, training)
    assert left_behind(model) == []
    assert_same(snapshot(model), floats)
    assert all(getattr(module, leaf) is params[name] for name, module, leaf in owners(model))


@kinds
@modes
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_keyboard_interrupt_leaves_floats_in_the_state_dict(kind, training, error):
    model, _ = make(kind)
    floats, params = snapshot(model), dict(model.named_parameters())
    blow(model, error, training)
    assert_same(snapshot(model), floats)
    assert all(p is params[name] for name, p in model.named_parameters())


@kinds
@modes
@pytest.mark.parametrize("then", [True, False])
def test_the_forward_after_a_keyboard_interrupt_works(kind, training, then):
    model, _ = make(kind)
    fresh, _ = make(kind)
    fresh.load_state_dict(model.state_dict())
    blow(model, KeyboardInterrupt, training)
    x, outs = torch.randn(3, 5), []
    for each in (model, fresh):
        torch.manual_seed(2)
        out = each.train(then)(x)
        outs.append(out)
        if then:
            out.square().sum().backward()
        assert left_behind(each) == []
    assert same_bits(*outs)
    if then:
        for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
            assert same_bits(p.grad, q.grad)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@kinds
@modes
@pytest.mark.parametrize("duplicate", [by_pickle, by_torch, copy.deepcopy])
def test_a_copy_made_after_a_keyboard_interrupt_holds_floats(kind, training, duplicate):
    model, _ = make(kind)
    floats = snapshot(model)
    blow(model, KeyboardInterrupt, training)
    other = duplicate(model)
    assert left_behind(other) == []
    assert_same(snapshot(other), floats)
    for name, module, leaf in owners(other):
        value = getattr(module, leaf)
        assert isinstance(value, nn.Parameter) and same_bits(value, floats[name]), name
    assert quantizer_of(other) is not None
    assert same_bits(other.eval()(torch.ones(2, 5)), model.eval()(torch.ones(2, 5)))


def test_size_state_and_bits_after_a_keyboard_interrupt():
    model, quantizer = make()
    before, size = quantizer.get_quantized_state(), quantizer.model_size().item()
    blow(model, KeyboardInterrupt, True)
    assert quantizer.model_size().item() == size
    after = quantizer.get_quantized_state()
    fresh = [Bombed(), Bombed()]
    for each, state in zip(fresh, (before, after), strict=True):
        restore_quantized_state(each, state)
    assert_same(snapshot(fresh[0]), snapshot(fresh[1]))


@pytest.mark.parametrize("call", ["quantize", "enter", "noisy", "detach", "eval"])
def test_every_call_after_a_keyboard_interrupt_starts_from_floats(call):
    model, quantizer = make()
    floats, logits = snapshot(model), named_logits(model)
    blow(model, KeyboardInterrupt, True)
    stored = stored_diffq(model.state_dict()["last.weight"], logits["last.weight"], SETTING)
    if call == "quantize":
        quantizer.quantize()
        assert same_bits(model.last.weight, stored)
        quantizer.unquantize()
    elif call == "enter":
        with quantizer.enter_quantize():
            assert same_bits(model.last.weight, stored)
    elif call == "noisy":
        with quantizer.noisy():
            model(torch.randn(2, 5))
    elif call == "detach":
        quantizer.detach()
        floats = {name: value for name, value in floats.items() if not name.endswith("_diffq")}
    else:
        _, seen = seen_weights(model.eval(), torch.randn(2, 5))
        assert same_bits(seen["last.weight"], stored)
    assert left_behind(model) == []
    assert_same(snapshot(model), floats)


def test_an_optimizer_step_after_a_keyboard_interrupt_moves_the_floats():
    model, _ = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    floats = snapshot(model)
    blow(model, KeyboardInterrupt, True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    model(torch.randn(2, 5))
    assert_same(snapshot(model), {name: value - 1 for name, value in floats.items()})


def test_an_error_raised_by_the_quantizer_itself_leaves_nothing():
    """Too little memory, a logit of the wrong shape: the forward never starts."""
    model, _ = make()
    model.last.weight_diffq.data = torch.zeros(3)
    floats = snapshot(model)
    with pytest.raises(Exception):  # noqa: B017
        model(torch.randn(2, 5))
    assert left_behind(model) == []
    assert_same(snapshot(model), floats)


def test_a_call_that_does_not_fit_the_forward():
    model, _ = make()
    with pytest.raises(TypeError):
        model(torch.randn(2, 5), nonsense=1)
    assert left_behind(model) == []
