"""torch.compile made after the quantizer: one whole graph, fresh noise, stored weights in eval."""

import copy

import pytest
import torch
from helpers.quant_models import Tied, assert_same, hidden, left_behind, snapshot
from helpers.quant_reference import Setting, named_logits
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer

# Dynamo hides this one from users; a filter that makes errors of warnings finds it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
SETTING = Setting(group_size=4, init_bits=3)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("noise", "param"), [("gaussian", "bits"), pytest.param("uniform", "noise", marks=pytest.mark.long)]
)
def test_training_in_a_whole_graph(noise, param):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = DiffQuantizer(model, **(SETTING.kwargs() | {"noise": noise, "param": param}))
    quantizer.setup_optimizer(optimizer, lr=0.01)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x, outs = torch.randn(5, 6), []
    for _ in range(3):
        outs.append(compiled(x))
    assert not torch.equal(outs[0], outs[1]) and not torch.equal(outs[1], outs[2])
    (outs[-1].square().mean() + quantizer.model_size()).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name
    before = snapshot(model)
    optimizer.step()
    assert all(not torch.equal(p, before[name + "_diffq"]) for name, p in named_logits(model).items())
    assert hidden(model) == []
    floats = snapshot(model)
    compiled(x)
    assert_same(snapshot(model), floats)


@pytest.mark.long
def test_the_compiled_step_is_the_eager_step_in_eval_and_in_its_mean():
    model = network()
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 6)
    model.eval()
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-6, atol=1e-6)
        before = compiled(x).clone()
        model[0].weight.mul_(1.5)
        model[2].weight_diffq.add_(1.0)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-6, atol=1e-6)
        assert not torch.allclose(compiled(x), before)
    model.train()
    assert not torch.equal(compiled(x), compiled(x))
    model.eval()
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-6, atol=1e-6)
    assert hidden(model) == []


@pytest.mark.long
@pytest.mark.parametrize("kind", [UniformQuantizer, LSQ])
def test_the_other_quantizers(kind):
    model = network()
    quantizer = kind(model, bits=3, min_size=0, **({"qat": True} if kind is UniformQuantizer else {}))
    if kind is LSQ:
        quantizer.no_optimizer()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 6)
    compiled(x).square().sum().backward()
    eager(x).square().sum().backward()
    for p, q in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(compiled.eval()(x), eager.eval()(x), rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_tied_weights_have_one_draw_in_the_graph():
    model = Tied()
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    tokens = torch.arange(11)
    assert not torch.equal(compiled(tokens), compiled(tokens))
    compiled(tokens).square().sum().backward()
    assert model.embed.weight_diffq.grad.abs().sum() > 0
    torch.testing.assert_close(compiled.eval()(tokens), model(tokens), rtol=1e-5, atol=1e-5)


def test_eager_forwards_and_detach_after_compiled_ones():
    model = network()
    quantizer = DiffQuantizer(model, **SETTING.kwargs())
    quantizer.no_optimizer()
    torch.compile(model, backend="eager", fullgraph=True)(torch.randn(5, 6))
    other = copy.deepcopy(model)
    for each in (model, other):
        assert hidden(each) == []
        first, second = each(torch.ones(5, 6)), each(torch.ones(5, 6))
        assert not torch.equal(first, second)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert not torch.equal(model[0].weight, other[0].weight)
    quantizer.detach()
    assert left_behind(model) == []
