"""Learned step size: signed levels times a step, with the gradients of Esser et al. 2020."""

import math

import pytest
import torch
from helpers.quant_models import Bag, Net, images, left_behind, same_bits
from helpers.quant_reference import stored_lsq
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from diffq_exp.quant import LSQ

SHAPES = [(40,), (7, 9), (5, 3, 3, 3), (1,), (), (128, 33)]


def step_of(model, name="w0"):
    return getattr(model, name + "_lsq")


@pytest.mark.parametrize("bits", [2, 3, 8, 15])
def test_the_step_starts_where_the_paper_says(bits):
    model = Bag(*SHAPES)
    LSQ(model, bits=bits, min_size=0)
    for name in model.names:
        step = step_of(model, name)
        assert isinstance(step, nn.Parameter) and step.numel() == 1
        expected = 2 * getattr(model, name).abs().mean().item() / math.sqrt(2 ** (bits - 1))
        assert step.item() == pytest.approx(expected, rel=1e-5)


def test_the_step_of_a_zero_tensor_is_small_and_positive():
    model = Bag((20,))
    nn.init.zeros_(model.w0)
    LSQ(model, bits=4, min_size=0).no_optimizer()
    assert 0 < step_of(model).item() < 1e-2
    for training in (True, False):
        value = model.train(training)()[0]
        assert (value == 0).all()
    model.train()()[0].sum().backward()
    assert model.w0.grad.isfinite().all() and step_of(model).grad.isfinite().all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 15])
@pytest.mark.parametrize("factor", [0.1, 1.0, 3.7])
def test_eval_equals_the_reference_bit_for_bit(bits, factor):
    model = Bag(*SHAPES)
    LSQ(model, bits=bits, min_size=0)
    for name in model.names:
        with torch.no_grad():
            step_of(model, name).mul_(factor)
    for name, value in zip(model.names, model.eval()(), strict=True):
        assert same_bits(value + 0.0, stored_lsq(getattr(model, name), step_of(model, name), bits) + 0.0), name


@hypothesis_settings(max_examples=30, deadline=None)
@given(bits=st.integers(2, 15), exponent=st.integers(-30, 30), seed=st.integers(0, 10**6))
def test_eval_for_any_width(bits, exponent, seed):
    torch.manual_seed(seed)
    model = Bag((50,))
    with torch.no_grad():
        model.w0.mul_(2.0**exponent)
    LSQ(model, bits=bits, min_size=0)
    assert same_bits(model.eval()()[0] + 0.0, stored_lsq(model.w0, step_of(model), bits) + 0.0)


def test_levels_are_signed_and_clamped():
    model = Bag((8,))
    LSQ(model, bits=3, min_size=0)
    with torch.no_grad():
        step_of(model).fill_(0.5)
        model.w0.copy_(torch.tensor([-9.0, -2.0, -1.3, -0.25, 0.25, 0.75, 1.5, 9.0]))
    assert model.eval()()[0].tolist() == [-2.0, -2.0, -1.5, 0.0, 0.0, 1.0, 1.5, 1.5]


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_gradients_by_hand(bits, factor):
    model = Bag((7, 9)).double()
    LSQ(model, bits=bits, min_size=0).no_optimizer()
    model.double()
    with torch.no_grad():
        step_of(model).mul_(factor)
    value, weight, step = model()[0], model.w0.detach(), step_of(model).item()
    upstream = torch.randn(7, 9).double()
    (value * upstream).sum().backward()

    top = 2 ** (bits - 1) - 1
    v = weight / step
    inside = (v > -top - 1) & (v < top)
    expected = torch.where(inside, v.round(), v.clamp(-top - 1, top)) * step
    torch.testing.assert_close(value.detach(), expected, rtol=1e-6, atol=1e-6)
    slope = torch.where(inside, v.round() - v, v.clamp(-top - 1, top))
    assert factor == 1.0 or not inside.all()
    torch.testing.assert_close(model.w0.grad, upstream * inside)
    wanted = (upstream * slope).sum() / math.sqrt(63 * top)
    torch.testing.assert_close(step_of(model).grad.sum(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 4, 15])
def test_training_computes_with_the_stored_weights(bits):
    model = Bag((7, 9))
    LSQ(model, bits=bits, min_size=0).no_optimizer()
    torch.testing.assert_close(model()[0].detach(), model.eval()()[0].detach(), rtol=1e-6, atol=1e-6)


def test_lsq_learns_weights_and_step():
    torch.manual_seed(1)
    x = torch.randn(256, 6)
    target = x @ torch.randn(6, 3)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    quantizer = LSQ(model, bits=4, min_size=0)
    quantizer.setup_optimizer(optimizer)
    start, losses = model.weight_lsq.item(), []
    for _ in range(80):
        optimizer.zero_grad()
        losses.append((model(x) - target).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert model.weight_lsq.item() != start


def test_biases_and_batch_norm_are_taken_with_min_size_zero():
    """A fresh network: weights of ones, biases of zeros."""
    model = Net()
    quantizer = LSQ(model, bits=4, min_size=0)
    quantizer.no_optimizer()
    model(images()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.eval()(images()).isfinite().all()
    assert left_behind(model) == []


def test_a_change_of_weight_or_step_is_seen_by_the_next_eval():
    model = Bag((40,))
    LSQ(model, bits=3, min_size=0)
    model.eval()()
    for tensor in (model.w0, step_of(model)):
        with torch.no_grad():
            tensor.mul_(1.3)
        assert same_bits(model()[0] + 0.0, stored_lsq(model.w0, step_of(model), 3) + 0.0)


def test_the_suffix_is_an_argument():
    model = Net()
    LSQ(model, min_size=0, suffix="_step")
    assert "conv.weight_step" in dict(model.named_parameters())


def test_at_the_last_level_a_weight_counts_as_clamped():
    """Equations 3 and 5 of the paper: inside is -QN < v/s < QP, both strict."""
    model = Bag((4,))
    LSQ(model, bits=3, min_size=0).no_optimizer()
    with torch.no_grad():
        step_of(model).fill_(0.5)
        model.w0.copy_(torch.tensor([-2.0, 1.5, -1.5, 1.0]))  # levels -4, 3 (the ends), -3, 2
    (model()[0] * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    assert model.w0.grad.tolist() == [0.0, 0.0, 100.0, 1000.0]
    assert step_of(model).grad.item() == pytest.approx((-4 + 30) / math.sqrt(4 * 3))
