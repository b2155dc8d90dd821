"""torch.compile shares code between models of one class; each of them still has its own quantizer, or none."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch._dynamo.config as config
from torch import nn

from diffq_exp.quant import UniformQuantizer
from diffq_exp.quant.compiled import NEEDED

# Dynamo hides this one from users; a filter that makes errors of warnings finds it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
X = torch.linspace(-1, 1, 30).reshape(5, 6)


@pytest.fixture(autouse=True)
def torchs_defaults():
    """As in a process that has had no quantizer yet."""
    torch._dynamo.reset()
    settings = {name: not value for name, value in NEEDED.items() if hasattr(config, name)}
    with config.patch(settings):
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


class Layer(nn.Module):
    """A class of a user's own, whose forward torch.compile takes apart from its hooks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 6)
        self.own = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return nn.functional.linear(self.linear(x).relu(), self.own)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()

    def forward(self, x):
        return self.layer(x) + 1


WRAPPED = pytest.mark.skipif(not hasattr(config, "wrap_top_frame"), reason="torch compiles hooks of a root apart")
KINDS = [pytest.param(Layer, marks=WRAPPED), Block]


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_layer_finds_its_weight_is_asked_at_each_call(kind):
    """Without its quantizer's values, then with them, and back: in training, in evaluation, and by hand."""
    model = kind()
    quantizer = UniformQuantizer(model, bits=3, min_size=0)  # trains on float weights
    fast = compiled(model)
    for _ in range(2):
        assert_as_eager(model.train(), fast)
        assert_as_eager(model.eval(), fast)
        with quantizer.enter_quantize():
            assert_as_eager(model, fast)
        assert_as_eager(model, fast)
    quantizer.detach()
    assert_as_eager(model, fast)
    quantized(model, 4)
    assert_as_eager(model, fast)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_of_ones_own_after_one_without_a_quantizer(kind):
    quantized(kind())
    floats, model = kind(), kind()
    assert_as_eager(floats, compiled(floats))
    quantized(model)
    for each in (model.train(), model.eval(), floats):
        assert_as_eager(each, compiled(each))


def test_an_unpickled_model_in_a_process_that_compiled_before():
    floats, model = network(), network()
    quantized(model)
    data = pickle.dumps(model)
    for name, value in NEEDED.items():
        setattr(config, name, not value)
    torch.compiler.reset()
    assert_as_eager(floats, compiled(floats))
    again = pickle.loads(data)
    assert_as_eager(again, compiled(again))


def test_a_copy_leaves_compiled_code_alone(monkeypatch):
    """Else a copy for each evaluation would have the network compiled each time."""
    model = network()
    quantized(model)
    resets = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: resets.append(True))
    copy.deepcopy(model)
    assert not resets
    quantized(network())
    assert resets == [True]


def test_reading_networks_does_not_wait_for_the_compiler():
    """Nothing but torch itself may import it, where nothing is trained."""
    loaded = [
        subprocess.run(
            [sys.executable, "-c", f"import torch{more}, sys; print('torch._dynamo' in sys.modules)"],
            capture_output=True, text=True, check=True,
        ).stdout
        for more in ("", ", diffq_exp, diffq_exp.quant, diffq_exp.storage")
    ]  # fmt: skip
    assert loaded[0] == loaded[1]


def test_a_compiled_part_of_a_model():
    model = Block()
    quantizer = quantized(model)
    part = torch.compile(model.layer, backend="eager")
    torch.testing.assert_close(part(X), model.layer(X))
    with quantizer.noisy():
        torch.testing.assert_close(part(X), model.layer(X), rtol=1e-6, atol=1e-6)
        inside = part(X)
    assert not torch.allclose(part(X), inside, atol=1e-3)


def test_a_part_that_is_compiled_in_place():
    model = Block()
    quantizer = UniformQuantizer(model, bits=3, min_size=0)
    expected = [model.train()(X), model.eval()(X)]
    model.layer.compile(backend="eager")
    for _ in range(2):
        torch.testing.assert_close(model.train()(X), expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(model.eval()(X), expected[1], rtol=1e-6, atol=1e-6)
    quantizer.detach()
    torch.testing.assert_close(model(X), expected[0], rtol=1e-6, atol=1e-6)
