"""Sizes: exact ones are integers of bits, the soft one and its gradient follow the formula."""

import pytest
import torch
from helpers.quant_models import Bag, Net, Tied, scramble, set_bits
from helpers.quant_reference import (
    MB_BITS,
    Setting,
    exact_size_bits,
    logits_for,
    named_logits,
    named_weights,
    soft_size_mb,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer
from diffq_exp.quant import formula as size

pytestmark = pytest.mark.usefixtures("each_way")


def make(model, setting, seed=0):
    quantizer = DiffQuantizer(model, **setting.kwargs())
    set_bits(model, setting, seed=seed, low=int(setting.min_bits) + 1, high=int(setting.max_bits))
    return quantizer


def assert_exact(quantizer, bits):
    """Equal to an integer of bits, to the bit, in both ways of asking."""
    assert isinstance(quantizer.true_model_size(), float)
    assert quantizer.true_model_size() * MB_BITS == bits
    exact = quantizer.model_size(exact=True)
    assert isinstance(exact, torch.Tensor) and exact.shape == ()
    assert exact.item() * MB_BITS == bits


@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("group_size", [0, 1, 7, 16])
@pytest.mark.parametrize(
    ("limits", "extra_bits"),
    [((2, 15, 8), 0), ((2, 15, 8), 4), ((1, 15, 8), 1.25), ((2.5, 9.25, 4), 0), ((3, 4, 3.5), 1.25)],
    ids=str,
)
def test_soft_and_exact_size_of_a_network(param, group_size, limits, extra_bits):
    low, high, init = limits
    setting = Setting(group_size, low, high, param, init_bits=init, extra_bits=extra_bits)
    model = Net()
    quantizer = make(model, setting)
    soft = quantizer.model_size()
    assert soft.shape == () and soft.requires_grad
    assert soft.item() == pytest.approx(soft_size_mb(model, setting).item(), rel=1e-6)
    assert_exact(quantizer, exact_size_bits(model, setting))


@pytest.mark.parametrize("float16", [False, True])
def test_sizes_with_float_entries(float16):
    setting = Setting(group_size=4, float16=float16, min_size=4 * 50 / 2**20)
    model = Net()
    quantizer = make(model, setting)
    assert list(named_logits(model)) == ["conv.weight"]
    floats = sum(p.numel() for p in named_weights(model).values()) - model.conv.weight.numel()
    assert soft_size_mb(model, setting, {}).item() * MB_BITS == (floats + 162) * (16 if float16 else 32)
    assert quantizer.model_size().item() == pytest.approx(soft_size_mb(model, setting).item(), rel=1e-6)
    assert_exact(quantizer, exact_size_bits(model, setting))


def test_size_written_out_by_hand():
    model = Bag((5, 4), (6,))
    quantizer = DiffQuantizer(model, min_size=4 * 10 / 2**20, group_size=8, min_bits=2)
    with torch.no_grad():
        model.w0_diffq.copy_(logits_for([3.0, 9.0, 5.0], Setting()))
    # 8 entries at 3, 8 at 9, a tail of 4 at 5; mn, mx; 8; 3 groups at ceil(log2(1 + 9 - 2)) = 3; 6 floats
    bits = 8 * 3 + 8 * 9 + 4 * 5 + 64 + 8 + 3 * 3 + 6 * 32
    assert_exact(quantizer, bits)
    assert quantizer.model_size().item() == pytest.approx(bits / MB_BITS, rel=1e-6)


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=3), min_size=1, max_size=3),
    group_size=st.integers(0, 30),
    limits=st.sampled_from([(1, 15, 8), (2, 15, 8), (4, 6, 5), (1.25, 14.5, 3)]),
    seed=st.integers(0, 1000),
)
def test_sizes_of_any_shapes(shapes, group_size, limits, seed):
    low, high, init = limits
    setting = Setting(group_size, low, high, init_bits=init)
    model = Bag(*map(tuple, shapes))
    quantizer = make(model, setting, seed)
    assert quantizer.model_size().item() == pytest.approx(soft_size_mb(model, setting).item(), rel=1e-6)
    assert_exact(quantizer, exact_size_bits(model, setting))


def test_exact_to_the_bit_beyond_the_integers_of_float32():
    setting = Setting(group_size=0, min_bits=1)
    model = Bag((2_000_003,), (2,))
    quantizer = make(model, setting)
    nn.init.constant_(model.w0_diffq, 40)
    bits = exact_size_bits(model, setting)
    assert bits > 2**24 and bits % 2 == 1
    assert_exact(quantizer, bits)
    assert quantizer.model_size().item() == pytest.approx(soft_size_mb(model, setting).item(), rel=1e-6)


def test_soft_size_of_many_groups_is_exact_to_a_millionth():
    setting = Setting(group_size=1)
    model = Bag((700_001,))
    quantizer = DiffQuantizer(model, **setting.kwargs())
    nn.init.normal_(model.w0_diffq, std=3)
    assert quantizer.model_size().item() == pytest.approx(soft_size_mb(model, setting).item(), rel=1e-6)


@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("group_size", [0, 1, 7])
def test_gradient_of_the_soft_size(param, group_size):
    setting = Setting(group_size=group_size, param=param, extra_bits=1.2, float16=True, min_size=4 * 20 / 2**20)
    model = Net()
    quantizer = make(model, setting)
    with torch.no_grad():
        for logits in named_logits(model).values():
            logits.clamp_(-3, 3)
    quantizer.model_size().backward()
    own = {name: p.detach().double().requires_grad_() for name, p in named_logits(model).items()}
    expected = torch.autograd.grad(soft_size_mb(model, setting, own), list(own.values()))
    for (name, p), grad in zip(named_logits(model).items(), expected, strict=True):
        assert grad.abs().min() > 0, name
        torch.testing.assert_close(p.grad.double(), grad, rtol=1e-4, atol=1e-12)
    assert all(p.grad is None for p in named_weights(model).values())


def test_gradient_by_hand_so_that_the_last_term_is_a_constant():
    """d size / d l = entries * (max - min) * sigma'(l) / 2^23, the widest group included."""
    model = Bag((10,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=4)
    with torch.no_grad():
        model.w0_diffq.copy_(torch.tensor([0.0, 1.0, -1.0]))
    quantizer.model_size().backward()
    sigma = torch.sigmoid(model.w0_diffq.detach())
    expected = torch.tensor([4.0, 4.0, 2.0]) * 13 * sigma * (1 - sigma) / MB_BITS
    torch.testing.assert_close(model.w0_diffq.grad, expected, rtol=1e-5, atol=0)


def test_the_last_term_takes_the_widest_group_without_a_clamp_in_the_soft_size():
    setting = Setting(group_size=2, extra_bits=4, min_bits=8, init_bits=12)
    model = Bag((6,))
    quantizer = DiffQuantizer(model, **setting.kwargs())
    with torch.no_grad():
        model.w0_diffq.copy_(logits_for([14.9, 9.0, 10.0], setting))
    # soft: widest 18.9 -> 19, ceil(log2(1 + 19 - 8)) = 4; exact: widest 15, ceil(log2(1 + 15 - 8)) = 3
    soft = 2 * (18.9 + 13 + 14) + 72 + 3 * 4
    assert quantizer.model_size().item() == pytest.approx(soft / MB_BITS, rel=1e-6)
    assert_exact(quantizer, 2 * (15 + 13 + 14) + 72 + 3 * 3)


def test_size_does_not_depend_on_the_mode_of_the_model():
    setting = Setting(group_size=4)
    model = Net()
    quantizer = make(model, setting)
    bits = exact_size_bits(model, setting)
    for mode in (model.train, model.eval, quantizer.quantize, quantizer.unquantize):
        mode()
        assert_exact(quantizer, bits)
        assert quantizer.model_size().requires_grad


def test_size_of_tied_weights():
    once, twice = Tied(), Tied()
    setting = Setting(group_size=4)
    assert_exact(DiffQuantizer(once, **setting.kwargs()), exact_size_bits(once, setting))
    double = DiffQuantizer(twice, **setting.kwargs(), detect_bound=False)
    shared = 77 * 8 + 72 + 20 * 3 + 7 * 8 + 72 + 2 * 3  # the table and the bias, counted a second time
    assert_exact(double, exact_size_bits(once, setting) + shared)


@pytest.mark.parametrize("bits", [1, 4, 8.0, 15, 2.5])
@pytest.mark.parametrize("float16", [False, True])
def test_size_of_uniform(bits, float16):
    model = scramble(Net(width=8))
    quantizer = UniformQuantizer(model, bits=bits, min_size=4 * 39 / 2**20, float16=float16)
    assert sorted(quantizer.quantized_names) == ["conv.weight", "head.weight"]
    expected = bits * (216 + 40) + 2 * 64 + (8 + 8 + 8 + 5) * (16 if float16 else 32)
    assert_exact(quantizer, expected)
    assert quantizer.model_size().item() == pytest.approx(expected / MB_BITS, rel=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 15])
@pytest.mark.parametrize("float16", [False, True])
def test_size_of_lsq(bits, float16):
    quantizer = LSQ(Net(width=8), bits=bits, min_size=4 * 39 / 2**20, float16=float16)
    expected = bits * (216 + 40) + 2 * 32 + (8 + 8 + 8 + 5) * (16 if float16 else 32)
    assert_exact(quantizer, expected)
    assert quantizer.model_size().item() == pytest.approx(expected / MB_BITS, rel=1e-6)


def test_uniform_exact_beyond_float32():
    assert_exact(UniformQuantizer(Bag((5_000_001,)), bits=5), 5 * 5_000_001 + 64)
    assert_exact(LSQ(Bag((5_000_001,)), bits=5), 5 * 5_000_001 + 32)


@pytest.mark.parametrize("group_size", [0, 1, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_size_of_a_network_in_half_precision_is_finite_and_right(dtype, group_size):
    model = torch.nn.Linear(512, 512)
    quantizer = DiffQuantizer(model, min_size=0, group_size=group_size)
    expected = quantizer.model_size()
    model.to(dtype)
    size = quantizer.model_size()
    torch.testing.assert_close(size, expected, rtol=1e-3, atol=0)
    size.backward()
    assert model.weight_diffq.grad.isfinite().all() and model.weight_diffq.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_groups_larger_than_any_tensor_are_whole_tensors(dtype):
    """Of tensors of very different sizes, to the last bit of the group's size."""
    found = []
    for group_size in (0, 1000, 2**31, 2**40, 2**70):
        torch.manual_seed(0)
        model = Bag((64,), (1000,)).to(dtype)
        quantizer = DiffQuantizer(model, min_size=0, group_size=group_size, init_bits=5)
        quantizer.no_optimizer()
        size = quantizer.model_size()
        size.backward()
        grads = [one.grad.double()[0].clone() for one in named_logits(model).values()]
        sum(value.sum() for value in model()).backward()  # runs
        model.eval()()
        found.append(torch.stack([size.detach().double(), quantizer.model_size(exact=True), *grads]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=0)
    assert found[0][0] == pytest.approx((5 * 1064 + 2 * (64 + 8 + 2)) / MB_BITS, rel=1e-4)


def test_torchs_operations_copy_nothing_to_the_device_that_a_cuda_graph_could_not_copy(monkeypatch):
    """What is captured first gets the constants of steps that kernels did before."""
    asked = []
    constant = size._constant
    monkeypatch.setattr(size, "_constant", lambda *args: (asked.append(args), constant(*args))[1])
    found = []
    for by_torch in (False, True):
        monkeypatch.setattr(size, "by_kernels", lambda _, by_torch=by_torch: not by_torch)
        asked.clear()
        quantizer = make(Bag((30,), (9, 4)), Setting(group_size=4))
        quantizer.model_size().backward()
        found.append(list(asked))
    assert found[0] == found[1] != []
