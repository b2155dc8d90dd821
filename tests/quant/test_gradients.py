"""Gradients of the noisy forward are those of w + scale * step(b) * eps, in float64."""

import itertools

import pytest
import torch
from helpers.quant_models import Bag, Net, images, seen_weights, set_bits
from helpers.quant_reference import (
    Setting,
    named_logits,
    named_weights,
    noise_step,
    noisy_weight,
    recovered_noise,
    scale_of,
)
from torch import nn

from diffq_exp.quant import DiffQuantizer

# Kernels are for float32; most tests here are in float64, for which torch computes whatever the backend
EACH_WAY = pytest.mark.usefixtures("each_way")
PAIRS = list(itertools.product(["bits", "noise"], ["uniform", "gaussian"]))
TIGHT = {"rtol": 1e-8, "atol": 1e-11}


def double_bag(setting, *shapes):
    model = Bag(*shapes).double()
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    model.double()  # the logits too
    set_bits(model, setting, low=2, high=12)
    return model


def assert_gradients_are_those_of_the_formula(model, setting):
    seen, logits = model(), named_logits(model)
    upstream = [torch.randn_like(value) for value in seen]
    sum((value * g).sum() for value, g in zip(seen, upstream, strict=True)).backward()
    for name, value, g in zip(model.names, seen, upstream, strict=True):
        weight = getattr(model, name)
        eps = recovered_noise(value, weight, logits[name], setting)
        w, l_ = weight.detach().clone().requires_grad_(), logits[name].detach().clone().requires_grad_()
        again = noisy_weight(w, l_, eps, setting)
        torch.testing.assert_close(again.detach(), value.detach(), rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad((again * g).sum(), [w, l_])
        torch.testing.assert_close(weight.grad, grads[0], **TIGHT)
        torch.testing.assert_close(logits[name].grad, grads[1], **TIGHT)


@pytest.mark.parametrize(("param", "noise"), PAIRS)
@pytest.mark.parametrize("group_size", [0, 1, 4, 5, 100])
def test_gradients_of_several_tensors(param, noise, group_size):
    setting = Setting(group_size=group_size, param=param, noise=noise, min_bits=1.5, max_bits=12.5)
    assert_gradients_are_those_of_the_formula(double_bag(setting, (4, 5), (2, 3, 2, 2), (9,)), setting)


@pytest.mark.parametrize(("param", "noise"), PAIRS)
def test_the_gradient_of_scale_reaches_the_extremes(param, noise):
    """Checked by hand, not by autograd: +share at the largest entry, -share at the smallest."""
    setting = Setting(group_size=3, param=param, noise=noise)
    model = double_bag(setting, (10,))
    with torch.no_grad():
        model.w0.copy_(torch.tensor([0.1, 2.0, -1.0, 0.3, 2.0, 0.0, 2.0, -1.0, 0.5, 1.9]))
    value, g = model()[0], torch.randn(10, dtype=torch.float64)
    eps = recovered_noise(value, model.w0, model.w0_diffq, setting)
    (value * g).sum().backward()
    share = (g * noise_step(model.w0_diffq, (10,), setting) * eps).sum().item()
    expected = g.clone()
    expected[[1, 4, 6]] += share / 3
    expected[[2, 7]] -= share / 2
    assert abs(share) > 1e-4
    torch.testing.assert_close(model.w0.grad, expected, **TIGHT)


def test_equal_extremes_against_autograd():
    setting = Setting(group_size=4)
    model = double_bag(setting, (5, 5))
    with torch.no_grad():
        model.w0.clamp_(-0.4, 0.4)
    assert (model.w0 == 0.4).sum() > 2 and (model.w0 == -0.4).sum() > 2
    assert_gradients_are_those_of_the_formula(model, setting)


def test_two_values_only():
    setting = Setting(group_size=3)
    model = double_bag(setting, (11,))
    with torch.no_grad():
        model.w0.copy_(torch.arange(11) % 2)
    assert_gradients_are_those_of_the_formula(model, setting)


@pytest.mark.parametrize(("param", "noise"), PAIRS)
@pytest.mark.parametrize("group_size", [0, 3])
def test_gradcheck(param, noise, group_size):
    setting = Setting(group_size=group_size, param=param, noise=noise, init_bits=4)
    model = Bag((3, 4), (5,)).double()
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    model.double()
    logits = list(named_logits(model).values())
    for l_ in logits:
        nn.init.normal_(l_, std=0.5)

    def forward(*_):
        torch.manual_seed(5)
        return tuple(model())

    weights = list(named_weights(model).values())
    assert torch.autograd.gradcheck(forward, (*weights, *logits))


def test_gradients_through_a_network_with_a_tail_group():
    setting = Setting(group_size=16, init_bits=3)  # 162 entries in the convolution: a tail of 2
    model = Net().double()
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    model.double()
    nn.init.normal_(model.norm.weight)
    out, seen = seen_weights(model, images().double())
    loss = out.square().sum()
    names, logits = list(named_weights(model)), named_logits(model)
    upstream = torch.autograd.grad(loss, [seen[name] for name in names], retain_graph=True)
    loss.backward()
    for name, g in zip(names, upstream, strict=True):
        weight, l_ = named_weights(model)[name], logits[name]
        if name in ("conv.bias", "norm.bias"):
            continue  # no effect after batch norm; a constant
        eps = recovered_noise(seen[name], weight, l_, setting)
        w, own = weight.detach().clone().requires_grad_(), l_.detach().clone().requires_grad_()
        grads = torch.autograd.grad((noisy_weight(w, own, eps, setting) * g).sum(), [w, own])
        torch.testing.assert_close(weight.grad, grads[0], **TIGHT)
        torch.testing.assert_close(l_.grad, grads[1], **TIGHT)


@EACH_WAY
def test_float32_gradients_agree_with_float64():
    setting = Setting(group_size=8, init_bits=5)
    model = Bag((50, 41))
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    value, g = model()[0], torch.randn(50, 41)
    (value * g).sum().backward()
    eps = recovered_noise(value, model.w0, model.w0_diffq, setting)
    w, l_ = (t.detach().double().requires_grad_() for t in (model.w0, model.w0_diffq))
    grads = torch.autograd.grad((noisy_weight(w, l_, eps, setting) * g).sum(), [w, l_])
    torch.testing.assert_close(model.w0.grad.double(), grads[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.w0_diffq.grad.double(), grads[1], rtol=1e-3, atol=1e-5)


@EACH_WAY
def test_noise_grows_as_bits_fall_along_the_gradient():
    """Sign: where more noise hurts, the descent direction raises the bits."""
    model = Bag((400,))
    DiffQuantizer(model, min_size=0, group_size=0, init_bits=3).no_optimizer()
    target = model.w0.detach().clone()
    (model()[0] - target).square().sum().backward()
    assert model.w0_diffq.grad.item() < 0
    expected = scale_of(target)
    assert expected > 0


@EACH_WAY
def test_gradients_accumulate_over_forwards_each_with_fresh_noise():
    model = Net()
    DiffQuantizer(model, **Setting(group_size=4, init_bits=3).kwargs()).no_optimizer()
    model.norm.eval()
    batches = [images(3), images(3) * 0.5]

    def grads(chosen):
        model.zero_grad()
        for seed in chosen:
            torch.manual_seed(seed)
            model(batches[seed]).square().mean().backward()
        return [p.grad.clone() for p in model.parameters()]

    first, second, both = grads([0]), grads([1]), grads([0, 1])
    for a, b, total in zip(first, second, both, strict=True):
        torch.testing.assert_close(a + b, total)
