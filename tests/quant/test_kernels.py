"""Compiled kernels against the formulas in float64 and Philox in Python's integers."""

import numpy as np
import pytest
import torch
from quant_models import Bag, Net, images, same_bits
from quant_philox import noise_after_seed, philox
from quant_reference import Setting, named_logits, noisy_weight, soft_size_mb
from torch import nn

from diffq_exp.quant import DiffQuantizer, groups, kernels, quantizer_of, threads
from diffq_exp.quant.jobs import inner
from diffq_exp.quant.kernels import PIECE

SHAPES = (7,), (8, 16, 3, 3), (9001,), (4, 5), (1,), (4100,)
GROUP_SIZES = [0, 1, 2, 3, 8, 32, 33, 72, 4096, 4097, 5000]


def noisy_bag(setting, *shapes, spread=2.0):
    model = Bag(*shapes)
    DiffQuantizer(model, **setting.kwargs()).no_optimizer()
    for logits in named_logits(model).values():
        nn.init.normal_(logits, std=spread)
    return model


def assert_forward_and_gradients(model, setting, seed=3):
    """Those of the formula, with the noise that Philox gives for this seed."""
    weights = [getattr(model, name) for name in model.names]
    drawn = noise_after_seed(seed, [w.numel() for w in weights], setting.group_size, setting.noise)
    torch.manual_seed(seed)
    values = model()
    upstream = [torch.randn_like(value) for value in values]
    torch.autograd.backward(values, upstream)
    for name, weight, value, g, eps in zip(model.names, weights, values, upstream, drawn, strict=True):
        logits = named_logits(model)[name]
        w, l_ = (one.detach().double().requires_grad_() for one in (weight, logits))
        expected = noisy_weight(w, l_, eps.view(w.shape), setting)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)
        grads = torch.autograd.grad(expected, [w, l_], g.double())
        for found, exact in zip((weight.grad, logits.grad), grads, strict=True):
            torch.testing.assert_close(
                found.double(), exact, rtol=1e-5, atol=1e-5 * exact.abs().max().item() + 1e-9
            )


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
    kernels.philox(out, count, np.uint64(number), np.uint64(rank), np.uint64(key))
    expected = [philox((i, number, rank, 0), (0xA4093822, 0x299F31D0)) for i in range(count)]
    assert (expected == out.reshape(4, count).T).all()


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_forward_and_gradients(group_size, param, noise):
    setting = Setting(group_size=group_size, param=param, noise=noise, min_bits=1.5, max_bits=12.5)
    assert_forward_and_gradients(noisy_bag(setting, *SHAPES), setting)


@pytest.mark.parametrize("group_size", [0, 1, 8, 5000])
def test_equal_extremes_share_the_gradient(group_size):
    setting = Setting(group_size=group_size, init_bits=3)
    model = noisy_bag(setting, (50, 99), (12,), (4097,), (10_000,))
    with torch.no_grad():
        model.w0.clamp_(-0.5, 0.5)  # hundreds, in every piece
        model.w1.copy_(torch.arange(12) % 2)  # nothing but extremes
        model.w2[[0, 4095, 4096]] = 9.0  # on both sides of where pieces end
        model.w3[[5000, 9999]] = torch.tensor([-9.0, 9.0])
    assert_forward_and_gradients(model, setting)


@pytest.mark.parametrize("group_size", [0, 8])
def test_zeros_of_both_signs_are_equal(group_size):
    setting = Setting(group_size=group_size)
    model = noisy_bag(setting, (5000,), (300,))
    with torch.no_grad():
        model.w0.abs_().clamp_(min=0.5)
        model.w0[[3, 4500]] = torch.tensor([0.0, -0.0])  # the lowest, twice
        model.w1.copy_(torch.tensor([0.0, -0.0]).repeat(150))  # constant: no noise, plain gradients
    value = model()[1]
    value.sum().backward()
    assert torch.equal(value, model.w1) and (model.w1.grad == 1).all()
    model.zero_grad()
    model.w1.data = torch.randn(300)
    assert_forward_and_gradients(model, setting)


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf")])
@pytest.mark.parametrize("group_size", [0, 8])
def test_what_is_no_number_makes_its_tensor_none_and_leaves_the_others(bad, group_size):
    model = noisy_bag(Setting(group_size=group_size), (5000,), (40,))
    with torch.no_grad():
        model.w0[4500] = bad
    first, second = model()
    (first.sum() + second.sum()).backward()
    assert not first.isfinite().any() and model.w0.grad is not None
    assert not model.w0_diffq.grad.isfinite().all()
    assert second.isfinite().all() and model.w1.grad.isfinite().all() and model.w1_diffq.grad.isfinite().all()


@pytest.mark.parametrize("param", ["bits", "noise"])
def test_logits_that_are_no_numbers_or_very_large(param):
    model = noisy_bag(Setting(param=param), (40,), (40,))
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


@pytest.mark.parametrize("param", ["bits", "noise"])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_sizes_and_their_gradients(group_size, param):
    setting = Setting(group_size=group_size, param=param, min_bits=1.5, extra_bits=0.5)
    model = noisy_bag(setting, *SHAPES)
    size = quantizer_of(model).model_size()
    (3 * size).backward()
    exact = {name: one.detach().double().requires_grad_() for name, one in named_logits(model).items()}
    expected = soft_size_mb(model, setting, exact)
    torch.testing.assert_close(size.double(), expected, rtol=1e-6, atol=0)
    grads = torch.autograd.grad(3 * expected, exact.values())
    for logits, grad in zip(named_logits(model).values(), grads, strict=True):
        torch.testing.assert_close(logits.grad.double(), grad, rtol=3e-6, atol=1e-12)


def test_powers_and_logarithms_of_two():
    power, logarithm = kernels._exp2, kernels._log2

    @inner
    def both(x, powers, logarithms):
        for i in range(len(x)):
            powers[i], logarithms[i] = power(x[i]), logarithm(x[i])

    x = np.concatenate([np.linspace(-125, 126, 200_001), [0.5, 1, 2, 2**15 + 1, np.nan, -1e9, 1e9]]).astype(
        np.float32
    )
    powers, logarithms = np.empty((2, len(x)), np.float32)
    both(x, powers, logarithms)
    inside, large = (x >= -125) & (x <= 126), (x >= 1) & (x < 1e9)
    assert np.abs(powers[inside] / np.exp2(x[inside].astype(np.float64)) - 1).max() < 2e-7
    assert powers[-2] == 2.0**-126 and powers[-1] == 2.0**127
    assert np.abs(logarithms[large] - np.log2(x[large].astype(np.float64))).max() < 2e-6  # of up to 15
    assert np.isnan(powers[-3]) and np.isnan(logarithms[-3])


# ---- threads, nodes, layouts -------------------------------------------------------------------------------------


def one_step(model, seed=4):
    torch.manual_seed(seed)
    values = model()
    model.zero_grad()
    sum(value.square().sum() for value in values).backward()
    return [one.detach().clone() for one in values] + [one.grad.clone() for one in model.parameters()]


@pytest.fixture
def on_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("group_size", [0, 1, 7, 8, 5000])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_nothing_depends_on_the_threads(kind, group_size, on_threads, monkeypatch):
    model = noisy_bag(Setting(noise=kind, group_size=group_size), (90_000,), (300,), (20_001,))
    found = []
    for number in (1, 2, 3):
        on_threads(number)
        found.append(one_step(model))
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    found.append(one_step(model))
    for other in found[1:]:
        assert all(same_bits(one, two) for one, two in zip(found[0], other, strict=True))


def test_large_weights_go_through_torchs_openmp(monkeypatch):
    parallel, calls = threads._openmp(), []
    if parallel is None:
        pytest.skip("torch is linked to another kind of OpenMP, or to none")
    monkeypatch.setattr(threads, "_openmp", lambda: lambda *args: (calls.append(args[2]), parallel(*args)))
    one_step(noisy_bag(Setting(group_size=8), (9 * PIECE,)))
    assert calls == [torch.get_num_threads()] * 4  # look, add_noise, pass_back, share


def test_a_node_for_each_weight_draws_the_same_noise():
    model = noisy_bag(Setting(group_size=8), *SHAPES)
    torch.manual_seed(4)
    together = model()
    torch.manual_seed(4)
    with quantizer_of(model).noisy():
        apart = model()
    assert len({value.grad_fn for value in together}) == 1 and len({value.grad_fn for value in apart}) == len(
        SHAPES
    )
    assert all(same_bits(*pair) for pair in zip(together, apart, strict=True))


def test_gradients_do_not_depend_on_which_weights_go_together(monkeypatch):
    found = []
    for most in (1, 2**62):
        monkeypatch.setattr(groups, "MOST", most)
        torch.manual_seed(1)
        model = Net().to(memory_format=torch.channels_last)
        DiffQuantizer(model, min_size=0, group_size=4, init_bits=3).no_optimizer()
        model(images()).square().sum().backward()
        found.append({name: param.grad for name, param in model.named_parameters()})
    assert found[0]["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, grad in found[0].items():
        assert same_bits(grad, found[1][name]) and grad.stride() == found[1][name].stride()


def test_neighbours_go_together_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(groups, "MOST", 20)
    sizes = [5, 5, 9, 1, 1, 30, 3, 40, 2, 2]
    found = [sizes[some] for some in groups.together([torch.empty(size) for size in sizes])]
    assert found == [[5, 5, 9, 1], [1], [30], [3], [40], [2, 2]]
    assert list(groups.together([])) == []


@pytest.mark.parametrize("large", [False, True])
def test_channels_last_weights_and_gradients(large):
    """Groups are row-major, whatever the memory format; so is the noise."""
    setting = Setting(group_size=9, init_bits=3)
    shape = (520, 128, 3, 3) if large else (8, 16, 3, 3)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = noisy_bag(setting, shape, (40,))
        model.w0.data = model.w0.data.to(memory_format=layout)
        torch.manual_seed(4)
        values = model()
        upstream = torch.randn(shape).to(memory_format=layout)
        values[0].backward(upstream)
        assert values[0].is_contiguous(memory_format=layout)
        found.append((values[0], model.w0.grad, model.w0_diffq.grad))
    for one, other in zip(*found, strict=True):
        assert same_bits(one, other)


def test_transposed_and_expanded_gradients():
    model = noisy_bag(Setting(group_size=3), (30, 50))
    found = []
    for grad in (
        torch.arange(50.0).expand(30, 50),
        torch.arange(50.0).repeat(30, 1),
        torch.arange(50.0).repeat(30, 1).t(),
    ):
        torch.manual_seed(4)
        model.zero_grad()
        (value,) = model()
        (value.t() if grad.shape[0] == 50 else value).backward(grad)
        found.append((model.w0.grad.clone(), model.w0_diffq.grad.clone()))
    for other in found[1:]:
        assert all(same_bits(*pair) for pair in zip(found[0], other, strict=True))


def test_a_gradient_with_a_pending_sign():
    """Of the imaginary part of a conjugate, which torch keeps as a mark on the tensor."""
    model = noisy_bag(Setting(group_size=4), (16,))
    found = []
    for conjugate in (True, False):
        torch.manual_seed(4)
        model.zero_grad()
        (value,) = model()
        number = torch.complex(torch.zeros(16), value)
        (number.conj().imag if conjugate else -number.imag).mul(torch.arange(16.0)).sum().backward()
        found.append((model.w0.grad.clone(), model.w0_diffq.grad.clone()))
    assert all(same_bits(*pair) for pair in zip(*found, strict=True))


@pytest.mark.usefixtures("each_way")
def test_weights_that_a_forward_does_not_use_have_no_gradient():
    """As without a quantizer: an optimizer with momentum then leaves them alone."""
    model = noisy_bag(Setting(group_size=4), (6, 8), (40,), (9,))
    first, _, third = model()
    (first.sum() + third.square().sum()).backward()
    assert model.w1.grad is None and model.w1_diffq.grad is None
    assert model.w0.grad is not None and (model.w2_diffq.grad != 0).any()


@pytest.mark.usefixtures("each_way")
def test_a_backward_takes_the_gradients_of_a_layer_before_it_goes_on(monkeypatch):
    """Else all would be in memory at its end, and distributed training could send none before."""
    monkeypatch.setattr(groups, "MOST", 1)
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    seen = []
    for number, layer in enumerate(model):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: seen.append(f"weight {number}"))
        layer.register_full_backward_hook(lambda *_, number=number: seen.append(f"layer {number}"))
    out = model(torch.randn(2, 8, requires_grad=True))
    if not hasattr(out.grad_fn, "_set_sequence_nr"):
        pytest.skip("this torch has an order of its own")
    out.sum().backward()
    assert seen.index("weight 2") < seen.index("layer 0") and len(seen) == 6


@pytest.mark.parametrize("what", ["w0", "w0_diffq"])
@pytest.mark.usefixtures("each_way")
def test_what_changes_before_the_backward_is_refused_by_autograd(what):
    model = noisy_bag(Setting(group_size=4), (8, 8), (40,))
    value = model()[0]
    with torch.no_grad():
        getattr(model, what).add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_logits_of_a_wrong_shape_are_refused():
    """Kernels would read what is beyond them."""
    model = noisy_bag(Setting(group_size=4), (8, 8), (40,))
    model.w1_diffq.data = torch.zeros(3)
    with pytest.raises(RuntimeError, match=r"\[16, 3\] groups for weights of \[16, 10\]"):
        model()
