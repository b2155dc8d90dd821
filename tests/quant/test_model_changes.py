"""A model that is changed behind a quantizer's back, and forwards that are not its own: right, or said."""

import contextlib
import warnings

import pytest
import torch
from helpers.quant_models import Net, images, left_behind
from torch import nn
from torch.nn.utils import prune, vector_to_parameters

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.stored.selection import ModelChanged

KINDS = [DiffQuantizer, UniformQuantizer, LSQ, RateQuantizer]


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))


def attached(kind, model):
    quantizer = kind(model, min_size=0)
    quantizer.no_optimizer()
    return quantizer


# ---- weights of the moment ---------------------------------------------------------------------------------------


def by_vector(weight):
    vector_to_parameters(torch.randn(weight.numel()), [weight])


def by_assignment(weight):
    weight.data = torch.randn_like(weight)


def by_data(weight):
    weight.data.copy_(torch.randn_like(weight))


def by_averaging(weight):
    weight.detach().numpy()[:] += 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [by_vector, by_assignment, by_data, by_averaging])
def test_evaluation_and_file_are_of_the_weights_of_the_moment(kind, change):
    """Twice, since memory that is freed is soon taken again, at the same address."""
    model = layers()
    quantizer, inputs = attached(kind, model.eval()), torch.randn(3, 8)
    seen, files = [model(inputs)], [storage.serialize(quantizer)]
    for _ in range(2):
        change(model[0].weight)
        seen.append(model(inputs))
        files.append(storage.serialize(quantizer))
    assert len(set(files)) == 3
    assert not any(torch.equal(a, b) for a, b in [(seen[0], seen[1]), (seen[1], seen[2])])


@pytest.mark.parametrize("kind", [DiffQuantizer, LSQ, RateQuantizer])
def test_so_they_are_of_learned_tensors(kind):
    model = layers()
    quantizer, inputs = attached(kind, model.eval()), torch.randn(3, 8)
    before = model(inputs)
    next(iter(quantizer.learned().values())).data.mul_(1.5).add_(0.3)
    assert not torch.equal(model(inputs), before)


def test_nothing_is_computed_again_while_nothing_changes(monkeypatch):
    model, count = layers().eval(), []
    quantizer = attached(UniformQuantizer, model)
    store = quantizer.store
    monkeypatch.setattr(quantizer, "store", lambda *given: count.append(1) or store(*given))
    for _ in range(3):
        model(torch.randn(3, 8))
    assert len(count) == len(quantizer.selection.quantized)


# ---- layers that are gone ----------------------------------------------------------------------------------------


def replace_layer(model):
    model[0] = nn.Linear(8, 32)


def prune_weight(model):
    prune.l1_unstructured(model[2], "weight", 0.5)


def normalize(model):
    nn.utils.parametrizations.weight_norm(model[0])


def delete(model):
    del model[2]


def replace_float_layer(model):
    model[3] = nn.LayerNorm(4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (replace_layer, "0.weight"), (prune_weight, "2.weight"), (normalize, "0.weight"), (delete, "2.weight"),
        (replace_float_layer, "3.weight"),
    ],
)  # fmt: skip
def test_a_layer_that_is_gone_is_named(kind, change, name):
    model = layers().append(nn.LayerNorm(4))
    quantizer = kind(model, min_size=0, exclude=["3.*"])
    quantizer.no_optimizer()
    change(model)
    for act in (
        lambda: model.train()(torch.randn(3, 8)), lambda: model.eval()(torch.randn(3, 8)),
        lambda: storage.serialize(quantizer), quantizer.stored_model, quantizer.quantize,
    ):  # fmt: skip
        with pytest.raises(ModelChanged, match=f"'{name}' is not the parameter that the quantizer was attached to"):
            act()
    if change is not normalize:  # torch keeps the class of a module that has a parametrization
        quantizer.detach()
        assert left_behind(model) == []


def test_a_parameter_that_is_replaced_in_its_module_is_the_one_that_counts():
    model = layers().eval()
    quantizer = attached(UniformQuantizer, model)
    model[0].weight = nn.Parameter(torch.ones(32, 8))
    assert torch.equal(quantizer.stored_model().value("0.weight"), torch.ones(32, 8))


# ---- forwards inside forwards ------------------------------------------------------------------------------------


class Recursive(nn.Module):
    def __init__(self, error=None):
        super().__init__()
        self.net, self.seen, self.error = nn.Linear(4, 4), [], error

    def forward(self, x, more=2):
        if more:
            with contextlib.suppress(ValueError):
                x = self(x, more - 1)
        elif self.error is not None:
            raise self.error
        self.seen.append(self.net.weight.detach().clone())
        return self.net(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("error", [None, ValueError("inside")])
def test_weights_are_the_same_until_the_outermost_forward_ends(kind, training, error):
    model = Recursive(error).train(training)
    attached(kind, model)
    for _ in range(2):
        model.seen.clear()
        model(torch.randn(2, 4))
        assert len(model.seen) == (3 if error is None else 2)
        assert all(torch.equal(one, model.seen[0]) for one in model.seen)
        plain = kind is UniformQuantizer and training  # it quantizes after training
        assert torch.equal(model.seen[0], model.net.weight) is plain
        assert left_behind(model) == []


def test_after_an_interrupt_inside_the_next_forward_is_the_outermost():
    model = Recursive(KeyboardInterrupt())
    attached(DiffQuantizer, model)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            model(torch.randn(2, 4))
    model.error = None
    model.seen.clear()
    model(torch.randn(2, 4))
    assert len(model.seen) == 3 and left_behind(model) == []
    assert not torch.equal(model.seen[0], model.net.weight)


# ---- forwards past the root --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DiffQuantizer, LSQ, RateQuantizer])
@pytest.mark.parametrize(
    "past", [lambda model, x: model.forward(x), lambda model, x: model[2](model[1](model[0](x)))]
)
def test_steps_without_a_quantized_forward_are_told_once(kind, past):
    model = layers()
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = kind(model, min_size=0)
    quantizer.setup_optimizer(optimizer)

    def step(forward):
        forward(model, torch.randn(3, 8)).sum().backward()
        optimizer.step()

    with pytest.warns(UserWarning, match=r"no training forward of the model has seen .*: call model\(...\)"):
        step(past)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(past)
        step(lambda model, x: model(x))


def test_a_quantized_forward_before_the_step_is_enough():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.setup_optimizer(optimizer)
    with quantizer.noisy():
        model.forward(images()).sum().backward()
    before = model.head.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert not torch.equal(model.head.weight, before)


# ---- weights that change themselves ------------------------------------------------------------------------------


class Changing(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = nn.Linear(4, 4), how

    def forward(self, x):
        with torch.no_grad():
            self.how(self.net)
        return self.net(x)


def clamped(net):
    net.weight.data.clamp_(-0.1, 0.1)


def renormed(net):
    net.weight.data = net.weight.data / net.weight.data.norm(dim=1, keepdim=True)


def scaled(net):
    net.weight.mul_(0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", [clamped, renormed, scaled])
def test_a_weight_that_a_forward_changes_is_refused_by_name(kind, training, how):
    model = Changing(how).train(training)
    attached(kind, model)
    if kind is UniformQuantizer and training:  # it sees the parameter itself
        before = model.net.weight.detach().clone()
        model(torch.randn(2, 4))
        assert not torch.equal(model.net.weight, before)
        return
    with pytest.raises(RuntimeError, match=r"'net.weight' is changed by the forward .*exclude=\['net.weight'\]"):
        model(torch.randn(2, 4))
    assert left_behind(model) == []


@pytest.mark.parametrize("training", [True, False])
def test_so_is_an_embedding_with_a_largest_norm(training):
    model = nn.Sequential(nn.Embedding(9, 4, max_norm=0.1)).train(training)
    quantizer = attached(DiffQuantizer, model)
    with pytest.raises(RuntimeError, match=r"'0.weight' is changed by the forward"):
        model(torch.arange(9))
    quantizer.detach()
    DiffQuantizer(model, min_size=0, exclude=["0.weight"])
    model(torch.arange(9))
    assert model[0].weight.norm(dim=1).max() <= 0.1001


def test_inside_noisy_it_is_looked_at_once():
    model = Changing(clamped)
    quantizer = attached(DiffQuantizer, model)
    with pytest.raises(RuntimeError, match=r"'net.weight' is changed by the forward"), quantizer.noisy():
        model(torch.randn(2, 4))
    model.how = lambda net: None
    for _ in range(2):
        with quantizer.noisy():
            model(torch.randn(2, 4))
            assert not quantizer.attachment._copies
    assert left_behind(model) == []


def test_an_evaluation_compares_the_weights_once(monkeypatch):
    model, count = layers().eval(), []
    quantizer = attached(DiffQuantizer, model)
    model(torch.randn(3, 8))
    look = quantizer.attachment.stored._is_unchanged
    monkeypatch.setattr(quantizer.attachment.stored, "_is_unchanged", lambda one: count.append(1) or look(one))
    model(torch.randn(3, 8))
    assert count == [1]
