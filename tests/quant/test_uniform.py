"""One width for all: after training, or during it with the straight-through estimator."""

import math

import pytest
import torch
from helpers.quant_models import Bag, Net, assert_same, images, left_behind, same_bits, seen_weights, snapshot
from helpers.quant_reference import stored_uniform
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from diffq_exp.quant import UniformQuantizer

SHAPES = [(40,), (7, 9), (5, 3, 3, 3), (1,), (), (128, 33)]
WIDTHS = [1, 1.58496251, 1.6, 2, 2.5, 3.9, 8, 8.0, 11.5, 15]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("qat", [True, False])
def test_eval_equals_the_reference_bit_for_bit(bits, qat):
    model = Bag(*SHAPES)
    UniformQuantizer(model, bits=bits, min_size=0, qat=qat)
    for name, value in zip(model.names, model.eval()(), strict=True):
        assert same_bits(value, stored_uniform(getattr(model, name), bits)), name


@hypothesis_settings(max_examples=30, deadline=None)
@given(bits=st.floats(1, 15), exponent=st.integers(-30, 30), seed=st.integers(0, 10**6))
def test_eval_for_any_width(bits, exponent, seed):
    torch.manual_seed(seed)
    model = Bag((50,))
    with torch.no_grad():
        model.w0.mul_(2.0**exponent).add_(seed % 3)
    UniformQuantizer(model, bits=bits, min_size=0)
    assert same_bits(model.eval()()[0], stored_uniform(model.w0, bits))


@pytest.mark.parametrize("bits", WIDTHS)
def test_number_of_levels_and_distance(bits):
    model = Bag((20_000,))
    UniformQuantizer(model, bits=bits, min_size=0)
    value, levels = model.eval()()[0], math.floor(2**bits)
    step = (model.w0.max() - model.w0.min()).item() / (levels - 1)
    assert len(value.unique()) <= levels
    if levels < 300:
        assert len(value.unique()) > 0.5 * levels
    assert (value - model.w0).abs().max().item() <= step / 2 * (1 + 1e-4) + 1e-6
    assert value.min() == model.w0.min()
    torch.testing.assert_close(value.max(), model.w0.max().detach())


def test_after_training_the_training_forward_is_plain():
    model = Net()
    UniformQuantizer(model, bits=2, min_size=0)
    _, seen = seen_weights(model, images())
    assert_same(seen, dict(model.named_parameters()))


@pytest.mark.parametrize("bits", [1, 2.5, 4, 15])
def test_qat_computes_with_the_stored_weights_and_passes_gradients_through(bits):
    model = Bag((7, 9), (33,))
    UniformQuantizer(model, bits=bits, min_size=0, qat=True)
    seen = model.train()()
    upstream = [torch.randn_like(value) for value in seen]
    sum((value * g).sum() for value, g in zip(seen, upstream, strict=True)).backward()
    for name, value, g in zip(model.names, seen, upstream, strict=True):
        weight = getattr(model, name)
        torch.testing.assert_close(value.detach(), stored_uniform(weight, bits), rtol=1e-6, atol=1e-6)
        assert torch.equal(weight.grad, g)


def test_qat_of_a_network():
    model, plain = Net(), Net()
    quantizer = UniformQuantizer(model, bits=3, min_size=0, qat=True)
    with quantizer.enter_quantize():
        plain.load_state_dict(model.state_dict())
    out = model(images())
    out.square().sum().backward()
    expected = plain(images())
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected)
    for (name, p), (_, q) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name, rtol=1e-4, atol=1e-4)
    assert left_behind(model) == []


def test_qat_learns():
    torch.manual_seed(1)
    x = torch.randn(256, 6)
    target = x @ torch.randn(6, 3)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    UniformQuantizer(model, bits=4, min_size=0, qat=True)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append((model(x) - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("qat", [True, False])
def test_no_parameter_is_added(qat):
    model = Net()
    before = snapshot(model)
    UniformQuantizer(model, min_size=0, qat=qat)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("qat", [True, False])
def test_a_change_is_seen_by_the_next_eval(qat):
    model = Bag((40,))
    UniformQuantizer(model, bits=3, min_size=0, qat=qat)
    model.eval()()
    with torch.no_grad():
        model.w0[3] = 10.0
    assert same_bits(model()[0], stored_uniform(model.w0, 3))


@pytest.mark.parametrize("qat", [True, False])
def test_a_constant_tensor(qat):
    model = Bag((9,))
    nn.init.constant_(model.w0, -0.7)
    UniformQuantizer(model, bits=3, min_size=0, qat=qat)
    for training in (True, False):
        value = model.train(training)()[0]
        torch.testing.assert_close(value.detach(), model.w0.detach(), rtol=0, atol=0)
    model.train()()[0].sum().backward()
    assert torch.equal(model.w0.grad, torch.ones(9))
