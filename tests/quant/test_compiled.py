"""torch.compile shares code between models of one class; each of them still has its own quantizer, or none."""

import pytest
import torch
import torch._dynamo.config as config
from torch import nn

from diffq_exp.quant import UniformQuantizer

X = torch.linspace(-1, 1, 30).reshape(5, 6)


@pytest.fixture(autouse=True)
def torchs_defaults():
    """As in a process that has had no quantizer yet."""
    torch._dynamo.reset()
    with config.patch(skip_nnmodule_hook_guards=True):
        yield
    torch._dynamo.reset()


def network(factor: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        for param in model.parameters():
            param.mul_(factor)
    return model


def quantized(model: nn.Module, bits: int = 2) -> UniformQuantizer:
    return UniformQuantizer(model, bits=bits, qat=True, min_size=0)


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def assert_as_eager(model, fast) -> None:
    torch.testing.assert_close(fast(X), model(X), rtol=1e-6, atol=1e-6)


def test_a_network_with_a_quantizer_after_one_without():
    floats, model = network(), network()
    before = compiled(floats)(X)
    quantized(model)
    fast = compiled(model)
    assert_as_eager(model, fast)
    assert not torch.allclose(fast(X), before, atol=1e-3)
    assert_as_eager(floats, compiled(floats))


def test_a_network_without_a_quantizer_after_one_with_it():
    floats, model = network(), network()
    quantized(model)
    for each in (model, floats, model, floats):
        assert_as_eager(each, compiled(each))


def test_two_quantizers():
    models = [network(), network(2.0), network()]
    for model, bits in zip(models, (2, 2, 4), strict=True):
        quantized(model, bits)
    fast = [compiled(model) for model in models]
    for _ in range(2):
        for model, one in zip(models, fast, strict=True):
            assert_as_eager(model, one)


@pytest.mark.parametrize("runs_before", [False, True])
def test_attached_after_it_was_compiled(runs_before):
    model = network()
    fast = compiled(model)
    floats = model(X)
    if runs_before:
        torch.testing.assert_close(fast(X), floats)
    quantizer = quantized(model)
    assert_as_eager(model, fast)
    assert not torch.allclose(fast(X), floats, atol=1e-3)
    quantizer.detach()
    torch.testing.assert_close(fast(X), floats, rtol=1e-6, atol=1e-6)


def test_compiled_in_place_and_inside_of_a_function():
    """Other ways to compile: model.compile(), and a function that calls the model."""
    models = network(), network(2.0)
    step = torch.compile(lambda model, x: model(x) + 1, backend="eager")
    for model in models:
        model.compile(backend="eager")
        model(X), step(model, X)
    for model in models:
        quantized(model)
    for model in models:
        expected = model._call_impl(X)
        torch.testing.assert_close(model(X), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(step(model, X), expected + 1, rtol=1e-6, atol=1e-6)
