"""Compiled kernels, on a CPU and a GPU, against the formulas in float64 and Philox in Python's integers."""

import numpy as np
import pytest
import torch
from helpers.quant_models import assert_forward_and_gradients, noisy_bag
from helpers.quant_philox import philox
from helpers.quant_reference import Setting, named_logits, soft_size_mb
from torch import nn

from diffq_exp.quant import quantizer_of
from diffq_exp.quant.kernels import autograd as compiled
from diffq_exp.quant.kernels.cpu import arithmetic
from diffq_exp.quant.kernels.cpu.jobs import inner

SHAPES = (7,), (8, 16, 3, 3), (8197,), (4, 5), (1,)  # 8197: two tiles and a bit, two groups of 4097 and a bit
GROUP_SIZES = [0, 1, 2, 3, 8, 32, 33, 72, 4096, 4097, 5000]
QUICK = [0, 32]  # gaussian bits, uniform noise
PAIRS = ("bits", "gaussian"), ("noise", "uniform"), ("bits", "uniform"), ("noise", "gaussian")
# Each with each on a CPU; by the interpreter, which is slow, each group size with one of the pairs
CASES = [(group_size, *pair, "cpu") for group_size in GROUP_SIZES for pair in PAIRS]
CASES += [
    pytest.param(size, *PAIRS[at % 4], "cuda", marks=[] if size in QUICK else [pytest.mark.long])
    for at, size in enumerate(GROUP_SIZES)
]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_reference_is_philox(counter, key, expected):
    """The known answers of Random123 (kat_vectors, philox4x32, 10 rounds)."""
    assert philox(counter, key) == expected


def test_philox():
    key, number, rank, count = 0x299F31D0A4093822, 0x85A308D3, 0x13198A2E, 50
    out = np.zeros(4 * count, np.uint32)
    arithmetic.philox(out, count, np.uint64(number), np.uint64(rank), np.uint64(key))
    expected = [philox((i, number, rank, 0), (0xA4093822, 0x299F31D0)) for i in range(count)]
    assert (expected == out.reshape(4, count).T).all()


@pytest.mark.parametrize(("group_size", "param", "noise", "device"), CASES, indirect=["device"])
def test_forward_and_gradients(group_size, param, noise, device):
    setting = Setting(group_size=group_size, param=param, noise=noise, min_bits=1.5, max_bits=12.5)
    assert_forward_and_gradients(noisy_bag(setting, *SHAPES, device=device), setting)


def test_each_rank_has_a_counter_of_its_own(monkeypatch, device):
    monkeypatch.setattr(compiled, "rank", lambda: 7)
    setting = Setting(group_size=8)
    assert_forward_and_gradients(noisy_bag(setting, *SHAPES[:2], device=device), setting, rank=7)


@pytest.mark.parametrize(
    ("group_size", "device"),
    [
        *((size, "cpu") for size in (0, 1, 8, 5000)),
        (0, "cuda"),
        pytest.param(8, "cuda", marks=pytest.mark.long),
    ],
    indirect=["device"],
)
def test_equal_extremes_share_the_gradient(group_size, device):
    setting = Setting(group_size=group_size, init_bits=3)
    model = noisy_bag(setting, (50, 99), (12,), (4097,), (10_000,), device=device)
    with torch.no_grad():
        model.w0.clamp_(-0.5, 0.5)  # hundreds, in every tile
        model.w1.copy_(torch.arange(12) % 2)  # nothing but extremes
        model.w2[[0, 4095, 4096]] = 9.0  # on both sides of where tiles end
        model.w3[[5000, 9999]] = torch.tensor([-9.0, 9.0], device=device)
    assert_forward_and_gradients(model, setting)


@pytest.mark.parametrize("group_size", [0, 8])
def test_zeros_of_both_signs_are_equal(group_size, device):
    setting = Setting(group_size=group_size)
    model = noisy_bag(setting, (5000,), (300,), device=device)
    with torch.no_grad():
        model.w0.abs_().clamp_(min=0.5)
        model.w0[[3, 4500]] = torch.tensor([0.0, -0.0], device=device)  # the lowest, twice
        model.w1.copy_(torch.tensor([0.0, -0.0]).repeat(150))  # constant: no noise, plain gradients
    value = model()[1]
    value.sum().backward()
    assert torch.equal(value, model.w1) and (model.w1.grad == 1).all()
    model.zero_grad()
    model.w1.data = torch.randn(300, device=device)
    assert_forward_and_gradients(model, setting)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("group_size", [0, 8])
def test_what_is_no_number_makes_its_tensor_none_and_leaves_the_others(bad, group_size, device):
    model = noisy_bag(Setting(group_size=group_size), (5000,), (40,), device=device)
    with torch.no_grad():
        model.w0[4500] = bad
    first, second = model()
    (first.sum() + second.sum()).backward()
    assert not first.isfinite().any() and model.w0.grad is not None
    assert not model.w0_diffq.grad.isfinite().all()
    assert second.isfinite().all() and model.w1.grad.isfinite().all() and model.w1_diffq.grad.isfinite().all()


@pytest.mark.parametrize("param", ["bits", "noise"])
def test_logits_that_are_no_numbers_or_very_large(param, device):
    model = noisy_bag(Setting(param=param), (40,), (40,), device=device)
    with torch.no_grad():
        model.w0_diffq[:4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30])
        model.w1_diffq[:2] = torch.tensor([200.0, -200.0])
    first, second = model()
    assert first[0].isnan() and first[1:].isfinite().all()
    size = quantizer_of(model).model_size()
    assert size.isnan()
    size.backward()
    assert model.w0_diffq.grad[0].isnan() and model.w0_diffq.grad[1:].isfinite().all()
    moved = (second - model.w1).detach().abs()
    scale = (model.w1.max() - model.w1.min()).item()
    assert moved[0] <= 1.01 * scale * 2.2 / 32767 and moved[1] <= 1.01 * scale * 2.2 / 3


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_sizes_and_their_gradients(group_size, param, device):
    setting = Setting(group_size=group_size, param=param, min_bits=1.5, extra_bits=0.5)
    model = noisy_bag(setting, *SHAPES, device=device)
    size = quantizer_of(model).model_size()
    (3 * size).backward()
    exact = {name: one.detach().cpu().double().requires_grad_() for name, one in named_logits(model).items()}
    expected = soft_size_mb(model, setting, exact)
    torch.testing.assert_close(size.cpu().double(), expected, rtol=1e-6, atol=0)
    grads = torch.autograd.grad(3 * expected, exact.values())
    for logits, grad in zip(named_logits(model).values(), grads, strict=True):
        torch.testing.assert_close(logits.grad.cpu().double(), grad, rtol=3e-6, atol=1e-12)


def test_powers_and_logarithms_of_two():
    power, logarithm = arithmetic.exp2, arithmetic.log2

    @inner
    def both(x, powers, logarithms):
        for i in range(len(x)):
            powers[i], logarithms[i] = power(x[i]), logarithm(x[i])

    x = np.concatenate([np.linspace(-126, 127, 200_001), [0.5, 1, 2, 2**15 + 1, np.nan, -1e9, 1e9]]).astype(
        np.float32
    )
    powers, logarithms = np.empty((2, len(x)), np.float32)
    both(x, powers, logarithms)
    inside, large = (x >= -126) & (x <= 127), (x >= 1) & (x < 1e9)
    assert np.abs(powers[inside] / np.exp2(x[inside].astype(np.float64)) - 1).max() < 2e-7
    assert powers[-2] == 2.0**-126 and powers[-1] == 2.0**127
    assert np.abs(logarithms[large] - np.log2(x[large].astype(np.float64))).max() < 1e-6  # of up to 15
    assert np.isnan(powers[-3]) and np.isnan(logarithms[-3])


@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("logit", [-40.0, -86.0, -1000.0, -float("inf"), 60.0, float("inf")])
def test_widths_at_their_very_ends_have_a_gradient_of_next_to_nothing(logit, param, device):
    for group_size in (0, 1, 8):
        model = noisy_bag(Setting(group_size=group_size, param=param), (12, 12), device=device)
        nn.init.constant_(model.w0_diffq, logit)
        (value,) = model()
        (1e20 * value.sum() + 1e20 * quantizer_of(model).model_size()).backward()
        assert (model.w0_diffq.grad.abs() < 1e20 * 1e-10).all()
