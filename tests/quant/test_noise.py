"""Noise objects: by name or given, with the step of each entry, by torch or by kernels."""

import pytest
import torch
from helpers.quant_models import Bag
from torch import nn

from diffq_exp.quant import DiffQuantizer, Noise
from diffq_exp.quant.noise import NOISES, Gaussian, NoNoise, Uniform, noise_of


class Rounding(Noise):
    """The error that rounding to the levels of the grid would make, no random number in it."""

    def draw(self, weight, step):
        level = (weight - weight.min()) / step
        return level.round() - level


class Wrong(Noise):
    def draw(self, weight, step):
        return torch.zeros(3)


def quantized(noise, shape=(30, 7), **options):
    model = Bag(shape)
    options = {"min_size": 0, "group_size": 4, "init_bits": 3, **options}
    return model, DiffQuantizer(model, noise=noise, **options)


def test_names_and_objects():
    assert {name: type(noise_of(name)) for name in NOISES} == {
        "gaussian": Gaussian, "uniform": Uniform, "none": NoNoise,
    }  # fmt: skip
    own = Rounding()
    assert noise_of(own) is own and quantized(own)[1].noise is own and quantized("uniform")[1].noise == Uniform()
    with pytest.raises(ValueError, match="noise must be one of gaussian, uniform, none, or a Noise, not 'gausian'"):
        quantized("gausian")


@pytest.mark.parametrize("group_size", [0, 1, 4, 1000])
def test_a_noise_knows_the_step_of_each_entry(group_size):
    """With the error of rounding for noise, a training forward is on the levels of each group's width."""
    model, quantizer = quantized(Rounding(), group_size=group_size, min_bits=1)
    quantizer.no_optimizer()
    logits = quantizer.learned()["w0_diffq"]
    with torch.no_grad():
        logits.copy_(torch.linspace(-1.5, 1.0, len(logits)))
    (value,) = model()
    low, high = model.w0.min(), model.w0.max()
    bits = quantizer.bits()["w0"].repeat_interleave(group_size or 1000)[: model.w0.numel()].view(model.w0.shape)
    levels = ((value - low) / (high - low) * (2**bits - 1)).detach()
    assert (levels - levels.round()).abs().max() < 1e-3 < (model.w0 - value).abs().max()
    value.square().sum().backward()
    assert model.w0.grad.abs().min() > 0 and logits.grad.abs().max() > 0


@pytest.mark.usefixtures("each_way")
def test_no_noise_at_all():
    model, quantizer = quantized("none")
    quantizer.no_optimizer()
    (value,) = model()
    assert torch.equal(value, model.w0)
    (value.sum() + quantizer.model_size()).backward()
    assert (
        torch.equal(model.w0.grad, torch.ones_like(model.w0)) and (quantizer.learned()["w0_diffq"].grad > 0).all()
    )


def test_kernels_have_the_shipped_kinds_and_no_subclass(monkeypatch):
    class Halved(Uniform):
        def draw(self, weight, step):
            return super().draw(weight, step) / 2

    given = []
    monkeypatch.setattr("diffq_exp.quant.diffq.by_kernels", lambda tensors: given.append(len(tensors)) or False)
    for noise, asked in (("gaussian", 1), ("uniform", 1), ("none", 1), (Halved(), 0), (Rounding(), 0)):
        model, quantizer = quantized(noise)
        quantizer.no_optimizer()
        given.clear()
        model()
        assert len(given) == asked


def test_a_noise_of_another_shape_is_refused():
    model, quantizer = quantized(Wrong())
    quantizer.no_optimizer()
    with pytest.raises(ValueError, match=r"Wrong gave a tensor \(3,\) for a weight \(30, 7\)"):
        model()


def test_a_noise_of_ones_own_under_torch_compile():
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    DiffQuantizer(model, min_size=0, group_size=4, init_bits=3, noise=Rounding()).no_optimizer()
    inputs = torch.randn(2, 6)
    expected = model(inputs)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager")(inputs), expected)
