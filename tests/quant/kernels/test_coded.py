"""Compiled training values and coded sizes of weights with steps, against autograd in float64."""

import copy
import pickle

import pytest
import torch
from helpers.quant_models import Bag, Net, images, same_bits
from helpers.quant_philox import noise_after_seed
from torch import nn

from diffq_exp.quant import Noise, RateQuantizer, quantizer_of
from diffq_exp.quant.coded_bits import estimated_bits
from diffq_exp.quant.formula import BITS_PER_MB, STEP_BITS
from diffq_exp.quant.kernels import autograd, coded
from diffq_exp.quant.kernels.cpu import threads

SHAPES = (7, 5, 3, 3), (130, 40), (2, 1, 5000), (3, 2, 1, 1), (20, 30, 7), (5, 1, 3), (1, 4096), (300,)
BOTH = pytest.mark.parametrize("progress", [0.0, 1.0], ids=["noise", "rounded"])
FROM = {"values": (1, 0), "size": (0, 1), "both": (1, 1)}  # what a loss is made of


def bag(progress=0.0, shapes=SHAPES, **options):
    model = Bag(*shapes)
    with torch.no_grad():
        for param in model.parameters():
            param.view(-1)[:2] = 0.0
    RateQuantizer(model, least_dims=1, **options).no_optimizer()
    quantizer_of(model).at(progress)
    return model


def log_steps(model):
    return [getattr(model, f"{name}_log_step") for name in model.names]


def weights(model):
    return [model._parameters[name] for name in model.names]


def step(model, seed=4, size=True):
    """What a Bag gives, and the gradients of its squares and, if wanted, its size."""
    torch.manual_seed(seed)
    model.zero_grad()
    values = model()
    loss = sum(value.square().sum() for value in values)
    (loss + quantizer_of(model).model_size() if size else loss).backward()
    return [one.detach().clone() for one in values] + [one.grad for one in model.parameters()]


@pytest.fixture
def passes(monkeypatch):
    """What kernels were asked for: (values, sums) of each bundle."""
    asked, plain = [], coded.ValuesAndSums.apply
    monkeypatch.setattr(
        coded.ValuesAndSums,
        "apply",
        lambda bundle, *rest: (asked.append((bundle.values, bundle.sums)), plain(bundle, *rest))[1],
    )
    return asked


# ---- against the formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", ["uniform", "gaussian", "none"])
@pytest.mark.parametrize(
    "shapes", [((130, 40), (7, 5)), ((50, 40, 3, 3), (2, 2, 9)), ((2, 2, 5000),), ((300,), (7, 5))]
)
def test_the_noise_is_that_of_philox(noise, shapes):
    model = bag(shapes=shapes, noise=noise)
    blocks = [coded.kernels_shape(shape) for shape in shapes]
    drawn = noise_after_seed(3, [one.numel() for one in weights(model)], blocks[0][2], noise)
    torch.manual_seed(3)
    for weight, log_step, value, eps in zip(weights(model), log_steps(model), model(), drawn, strict=True):
        expected = weight.double() + log_step.double().exp() * eps.view(weight.shape)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-6)


def formula(weight, log_step, error, rounded):
    """The training value and the bits of a weight."""
    levels = weight / log_step.exp()
    if rounded:
        levels = levels + (levels.round() - levels).detach()
    return weight + log_step.exp() * error, estimated_bits(levels.abs()).sum() + STEP_BITS


@BOTH
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("source", FROM)
def test_values_sizes_and_gradients_are_those_of_the_formulas(progress, noise, source, passes):
    model, (of_values, of_size) = bag(progress, noise=noise), FROM[source]
    with torch.no_grad():
        log_steps(model)[1].fill_(-2.0)
        weights(model)[1].view(-1)[2:5] = torch.tensor([0.5, -1.5, 2.5]) * log_steps(model)[1].exp()  # ties
    quantizer = quantizer_of(model)
    values = [value.detach() for value in model()]
    torch.manual_seed(1)
    upstream = [torch.randn_like(value) for value in values]
    bits, pairs = 0.0, list(zip(weights(model), log_steps(model), strict=True))
    torch.manual_seed(2)
    values, size = model(), quantizer.model_size()
    loss = of_values * sum((value * g).sum() for value, g in zip(values, upstream, strict=True))
    (loss + of_size * 20 * size).backward()
    exact = [tuple(one.detach().double().requires_grad_() for one in pair) for pair in pairs]
    loss = 0.0
    for (weight, log_step), value, g in zip(exact, values, upstream, strict=True):
        error = (value.detach().double() - weight.detach()) / log_step.detach().exp()
        expected, own = formula(weight, log_step, error, progress == 1.0)
        loss, bits = loss + of_values * (expected * g).sum(), bits + own
    (loss + of_size * 20 * bits / BITS_PER_MB).backward()
    torch.testing.assert_close(size.double(), bits / BITS_PER_MB, rtol=2e-6, atol=0)
    for found, expected in zip(
        (x for pair in pairs for x in pair), (x for pair in exact for x in pair), strict=True
    ):
        bound = 2e-5 * expected.grad.abs().max().item() + 1e-9
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-5, atol=bound)
    assert passes == [(True, True)] * 2


def test_rounded_weights_are_those_of_evaluation_to_the_bit():
    model = bag(1.0)
    trained = [value.detach().clone() for value in model()]
    assert all(torch.equal(*pair) for pair in zip(trained, model.eval()(), strict=True))


def test_sizes_of_weights_of_any_scale_are_those_of_torch():
    for scale in (0.0, 1e-4, 1.0, 300.0):
        model = bag(1.0, ((40, 30, 3, 3), (50, 60)))
        with torch.no_grad():
            weights(model)[0].mul_(scale)
        quantizer = quantizer_of(model)
        torch.testing.assert_close(quantizer.size_bits(False), quantizer.size_bits(True), rtol=1e-5, atol=0)


# ---- one pass for values and size -------------------------------------------------------------------------------


@BOTH
def test_a_size_takes_the_sums_of_the_forward_before_it_if_nothing_has_changed(progress, passes):
    model = bag(progress)
    quantizer = quantizer_of(model)
    model()
    with torch.no_grad():
        quantizer.model_size()  # leaves them for the one that has a gradient
    assert passes == [(True, True), (False, True)]
    quantizer.model_size()
    assert len(passes) == 2
    quantizer.model_size()
    assert passes[2:] == [(False, True)]


@pytest.mark.parametrize("what", ["weight", "step", "data", "progress", "frozen"])
def test_a_size_after_a_change_is_that_of_what_is_there_now(what):
    model = bag()
    quantizer = quantizer_of(model)
    model()
    with torch.no_grad():
        if what == "weight":
            model.w0.mul_(2)
        elif what == "step":
            model.w0_log_step.add_(1)
        elif what == "data":
            model.w0.data = model.w0.data * 2
        elif what == "frozen":
            model.w0.requires_grad_(False)
    if what == "progress":
        quantizer.at(1.0)
    found = quantizer.model_size()
    assert torch.equal(found, quantizer.model_size())
    found.backward()
    assert (model.w0.grad is None) == (what == "frozen")


@BOTH
@pytest.mark.parametrize("first", ["loss", "size"])
def test_loss_and_size_may_go_backward_one_by_one(progress, first):
    model = bag(progress)
    together = step(model)
    torch.manual_seed(4)
    model.zero_grad()
    values = model()
    parts = [sum(value.square().sum() for value in values), quantizer_of(model).model_size()]
    for part in parts if first == "loss" else parts[::-1]:
        part.backward()
    found = [one.grad for one in model.parameters()]
    for one, other in zip(found, together[len(SHAPES) :], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", ["w0", "w0_log_step"])
def test_a_change_between_forward_and_backward_is_refused(what):
    model = bag()
    loss = sum(value.sum() for value in model())
    with torch.no_grad():
        getattr(model, what).add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_copies_and_pickles_after_a_forward():
    model = bag()
    model()
    expected = step(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(same_bits(*pair) for pair in zip(step(other), expected, strict=True))


# ---- nodes, threads, memory -------------------------------------------------------------------------------------


@BOTH
def test_a_node_for_each_weight_has_the_same_noise_and_gradients(progress):
    model = bag(progress)
    together = step(model)
    torch.manual_seed(4)
    model.zero_grad()
    with quantizer_of(model).noisy():
        values = model()
        assert len({value.grad_fn for value in values}) == len(SHAPES)
        (sum(value.square().sum() for value in values) + quantizer_of(model).model_size()).backward()
    assert all(same_bits(*pair) for pair in zip(values, together, strict=False))
    for one, other in zip(model.parameters(), together[len(SHAPES) :], strict=True):
        torch.testing.assert_close(one.grad, other, rtol=1e-5, atol=1e-6)


@BOTH
def test_nothing_depends_on_the_bundles(progress, monkeypatch):
    found = []
    for most in (1, 10_000, 2**62):
        monkeypatch.setitem(autograd.BUNDLE, "cpu", most)
        torch.manual_seed(0)
        found.append(step(bag(progress)))
    assert all(same_bits(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@BOTH
def test_nothing_depends_on_the_threads(progress, monkeypatch):
    model, before, found = bag(progress, ((90, 100, 3, 3), (300, 7))), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            found.append(step(model))
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    found.append(step(model))
    assert all(same_bits(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@BOTH
@pytest.mark.parametrize("size", [False, True])
def test_channels_last_and_transposed_weights(progress, size):
    found = []
    for change in (lambda x: x, lambda x: x.to(memory_format=torch.channels_last), lambda x: x.mT.contiguous().mT):
        torch.manual_seed(0)
        model = bag(progress, ((12, 8, 3, 5), (6, 4, 1, 3)))
        for param in weights(model):
            param.data = change(param.data)
        found.append(step(model, size=size))
        assert [one.stride() for one in found[-1][:2]] == [one.stride() for one in weights(model)]
        assert [one.grad.stride() for one in weights(model)] == [one.stride() for one in weights(model)]
    assert all(same_bits(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@BOTH
def test_unused_and_frozen_weights_have_no_gradient(progress):
    model = bag(progress)
    weights(model)[2].requires_grad_(False)
    first, _, third, *_ = model()
    (first.sum() + third.square().sum()).backward()
    assert model.w1.grad is None and model.w1_log_step.grad is None and model.w2.grad is None
    assert torch.equal(model.w0.grad, torch.ones_like(model.w0)) and model.w2_log_step.grad != 0


@pytest.mark.parametrize("size", [False, True])
def test_a_sparse_gradient_becomes_dense(size):
    model = nn.Embedding(11, 7, sparse=True)
    RateQuantizer(model).no_optimizer()
    loss = model(torch.tensor([1, 3])).sum()
    (loss + quantizer_of(model).model_size() if size else loss).backward()
    assert model.weight.grad.layout == torch.strided and model.weight.grad[1].ne(0).any()
    assert model.weight.grad[0].ne(0).any() == size


def test_ranks_have_a_noise_of_their_own(monkeypatch):
    model, found = bag(), []
    for number in (0, 1):
        monkeypatch.setattr(coded, "rank", lambda number=number: number)
        torch.manual_seed(0)
        found.append(model()[0].detach().clone())
    assert not torch.equal(*found)


# ---- what goes by torch -----------------------------------------------------------------------------------------


class Half(Noise):
    def draw(self, weight, step):
        return torch.full_like(weight, 0.5)


@pytest.mark.parametrize("how", ["noise", "dtype", "empty", "steps"])
def test_what_kernels_do_not_have_goes_by_torch(how, passes):
    model = bag(noise=Half()) if how == "noise" else bag()
    if how == "dtype":
        model.w0.data = model.w0.data.bfloat16()
    elif how == "empty":
        model.w0.data = torch.zeros(7, 0, 3, 3)
    elif how == "steps":
        assert not coded.serves(weights(model), [torch.zeros(one.shape[0]) for one in weights(model)])
        return
    model()
    assert not passes
    quantizer_of(model).at(1.0)
    model()
    assert bool(passes) == (how == "noise")  # which is not drawn where weights are rounded


@BOTH
def test_a_network_trains_as_it_does_by_torch(progress, monkeypatch):
    found = []
    for serves in (coded.serves, lambda *_: False):
        monkeypatch.setattr("diffq_exp.quant.rate.serves", serves)
        torch.manual_seed(0)
        model = Net().to(memory_format=torch.channels_last)
        quantizer = RateQuantizer(model, noise="none")
        quantizer.no_optimizer()
        quantizer.at(progress)
        (model(images()).square().sum() + 100 * quantizer.model_size()).backward()
        found.append([one.grad for one in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
