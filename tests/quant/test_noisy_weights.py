"""The noise of the training forward: its distribution, its independence, and where there is none."""

import itertools

import pytest
import torch
from helpers.quant_models import Bag, Net, Tied, images, same_bits, seen_weights, set_bits
from helpers.quant_reference import Setting, named_logits, recovered_noise
from torch import nn

from diffq_exp.quant import DiffQuantizer

pytestmark = pytest.mark.usefixtures("each_way")
N = 60_000
MOMENTS = {"uniform": (1 / 12, 1 / 80), "gaussian": (1 / 4, 3 / 16)}  # of eps: variance, fourth moment


# kernels.test_autograd tells that kernels of a GPU have the noise of those of a CPU: its distribution is told once
TOLD_ONCE = pytest.mark.parametrize("each_way", ["torch", "cpu"], indirect=True)


def bag(setting, *shapes):
    model = Bag(*shapes)
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    return model


def draw(model, setting):
    """The eps of one forward, a flat tensor for each weight."""
    logits, seen = named_logits(model), model()
    return [
        recovered_noise(value, getattr(model, name), logits[name], setting).flatten()
        for name, value in zip(model.names, seen, strict=True)
    ]


@TOLD_ONCE
@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_mean_variance_and_shape_of_the_distribution(noise, param):
    setting = Setting(group_size=7, noise=noise, param=param, extra_bits=2)
    model = bag(setting, (N // 100, 100))
    set_bits(model, setting, low=2)
    eps = draw(model, setting)[0]
    variance, fourth = MOMENTS[noise]
    assert eps.numel() == N
    assert abs(eps.mean()) < 5 * (variance / N) ** 0.5
    assert abs(eps.square().mean() - variance) < 5 * ((fourth - variance**2) / N) ** 0.5
    assert abs(eps.pow(4).mean() / fourth - 1) < 0.06
    if noise == "uniform":
        assert eps.abs().max() <= 0.5 + 1e-5
        assert eps.max() > 0.499 and eps.min() < -0.499
        quarters = torch.histc(eps.float(), bins=4, min=-0.5, max=0.5) / N
        assert (quarters - 0.25).abs().max() < 0.01
    else:
        inside = (eps.abs() < 0.5).double().mean()  # one standard deviation
        assert abs(inside - 0.6827) < 0.01
        assert 1.7 < eps.abs().max() < 3.5


@TOLD_ONCE
def test_gaussian_has_three_times_the_variance_of_uniform_and_is_the_default():
    variances = {}
    for noise in ("uniform", "gaussian", None):
        model = Bag((N,))
        keywords = {} if noise is None else {"noise": noise}
        DiffQuantizer(model, min_size=0, init_bits=3, group_size=0, **keywords).no_optimizer()
        setting = Setting(group_size=0, init_bits=3)
        variances[noise] = draw(model, setting)[0].var()
    assert variances["gaussian"] / variances["uniform"] == pytest.approx(3, rel=0.03)
    assert variances[None] / variances["uniform"] == pytest.approx(3, rel=0.03)


@TOLD_ONCE
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_independent_across_entries_steps_and_tensors(noise):
    setting = Setting(group_size=8, noise=noise)
    model = bag(setting, (N,), (N,))
    first, second = draw(model, setting), draw(model, setting)
    pairs = list(itertools.combinations([*first, *second], 2))
    pairs += [(first[0][:-lag], first[0][lag:]) for lag in (1, 2, 7, 8, 16)]
    pairs += [(a.abs(), b.abs()) for a, b in pairs]
    for a, b in pairs:
        correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
        assert abs(correlation) < 5 / N**0.5


@TOLD_ONCE
def test_step_is_that_of_the_entrys_group():
    """Groups at 15 bits beside groups at 2 bits: the sizes of the noise differ by (2^15-1)/(2^2-1)."""
    setting = Setting(group_size=3, noise="uniform")
    model = bag(setting, (7, 5))  # 12 groups, the last with 2 entries
    with torch.no_grad():
        model.w0_diffq.copy_(torch.tensor([-40.0, 40.0] * 6))
    low = (torch.arange(35) // 3 % 2 == 0).view(7, 5)
    scale = (model.w0.max() - model.w0.min()).item()
    moved = torch.stack([(model()[0] - model.w0).abs() for _ in range(200)]).amax(0)
    assert (moved[low] <= scale / 3 / 2 + 3e-7).all() and (moved[low] > scale / 3 / 4).all()
    assert (moved[~low] <= scale / 32767 / 2 + 3e-7).all() and (moved[~low] > scale / 32767 / 4).all()


def test_extra_bits_do_not_make_the_noise_smaller():
    eps = {}
    for extra in (0, 5):
        setting = Setting(init_bits=3, extra_bits=extra)
        torch.manual_seed(3)
        model = bag(setting, (1000,))
        eps[extra] = (model()[0] - model.w0).detach()
    assert torch.equal(eps[0], eps[5])


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_a_seed_gives_the_same_noise_again_and_each_forward_a_new_one(noise):
    model = Net()
    DiffQuantizer(model, **Setting(noise=noise).kwargs()).no_optimizer()
    outs = []
    for seed in (7, 7, 8, None):
        if seed is not None:
            torch.manual_seed(seed)
        _, seen = seen_weights(model, images())
        outs.append(seen["conv.weight"].detach().clone())
    assert same_bits(outs[0], outs[1])
    assert not torch.equal(outs[1], outs[2])
    assert not torch.equal(outs[2], outs[3])
    assert (outs[0] != model.conv.weight).all()


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("shape", [(30,), (1,), ()])
def test_a_constant_tensor_gets_no_noise_and_plain_gradients(noise, shape):
    model = Bag(shape, (10,))
    DiffQuantizer(model, **Setting(noise=noise, group_size=4).kwargs()).no_optimizer()
    nn.init.constant_(model.w0, 0.3)
    value, other = model()
    assert same_bits(value, model.w0)
    assert not torch.equal(other, model.w1)
    upstream = torch.randn(shape)
    ((value * upstream).sum() + other.sum()).backward()
    torch.testing.assert_close(model.w0.grad, upstream)
    assert (model.w0_diffq.grad == 0).all()
    assert (model.w1_diffq.grad != 0).all()


def test_tied_weights_get_one_draw():
    model = Tied()
    DiffQuantizer(model, min_size=0, init_bits=3).no_optimizer()
    _, seen = seen_weights(model, torch.arange(5))
    assert same_bits(seen["embed.weight"], seen["out.weight"])
    assert same_bits(seen["mid.bias"], seen["norm.bias"])
    assert not torch.equal(seen["embed.weight"], model.embed.weight)


def test_tied_weights_get_a_draw_for_each_use_without_detection():
    model = Tied()
    DiffQuantizer(model, min_size=0, init_bits=3, detect_bound=False).no_optimizer()
    _, seen = seen_weights(model, torch.arange(5))
    assert (seen["embed.weight"] != seen["out.weight"]).all()


def test_a_frozen_weight_is_noisy_and_its_bits_learn():
    model = Bag((40,))
    model.w0.requires_grad_(False)
    DiffQuantizer(model, **Setting().kwargs()).no_optimizer()
    model()[0].square().sum().backward()
    assert model.w0.grad is None
    assert (model.w0_diffq.grad != 0).all()


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_weights_of_two_dtypes_in_one_network(noise):
    model = Bag((300,), (300,), (300,))
    model.w1.data = model.w1.data.double()
    DiffQuantizer(model, min_size=0, group_size=8, init_bits=3, noise=noise).no_optimizer()
    values = model()
    sum(value.square().sum().double() for value in values).backward()
    for name, value in zip(model.names, values, strict=True):
        weight = getattr(model, name)
        assert value.dtype == weight.dtype == weight.grad.dtype
        assert not torch.equal(value, weight) and (getattr(model, name + "_diffq").grad != 0).all()
