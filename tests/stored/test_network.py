"""A stored network finds the quantizer of a model by its hooks, and gives tensors by every name."""

import copy

import torch
from helpers.quant_models import Tied, same_bits
from torch import nn

from diffq_exp.quant import UniformQuantizer
from diffq_exp.stored.network import StoredModel, StoresModel, owner_of, write_into


class Quantizer(StoresModel):
    """Stores nothing; only its place at the model matters."""

    def stored_model(self, at_once=True):
        return StoredModel("none", {}, {}, {})

    def restore(self, stored):
        raise AssertionError("not restored here")

    def learned(self):
        return {}

    def before(self, module, args):
        return None


class Attachment:
    def __init__(self, owner):
        self.owner = owner

    def before(self, module, args):
        return None


def test_the_owner_is_the_object_of_a_hook_or_its_owner():
    for held in (False, True):
        model, quantizer = nn.Sequential(nn.Linear(2, 2)), Quantizer()
        model.register_forward_pre_hook(lambda module, args: None)
        model.register_forward_pre_hook(Attachment("no quantizer").before)
        assert owner_of(model) is None
        model.register_forward_pre_hook((Attachment(quantizer) if held else quantizer).before)
        assert owner_of(model) is quantizer
        assert owner_of(model[0]) is None


def test_a_copy_has_a_quantizer_of_its_own():
    model = nn.Linear(4, 4)
    quantizer = UniformQuantizer(model, min_size=0)
    assert owner_of(model) is quantizer
    other = owner_of(copy.deepcopy(model))
    assert isinstance(other, UniformQuantizer) and other is not quantizer


def test_a_tensor_has_its_value_and_shape_under_every_name():
    model = Tied()
    stored = UniformQuantizer(model, min_size=0).stored_model()
    values, shapes = stored.values(), stored.shapes()
    assert values.keys() == shapes.keys() == model.state_dict().keys()
    assert same_bits(stored.value("out.weight"), values["embed.weight"])
    for name, value in values.items():
        assert same_bits(stored.value(name), value) and shapes[name] == tuple(value.shape)


def test_writing_keeps_tied_parameters_tied():
    stored = UniformQuantizer(Tied(), min_size=0).stored_model()
    other = Tied()
    write_into(other, stored)
    assert other.out.weight is other.embed.weight
    assert torch.equal(other.embed.weight, stored.value("out.weight"))


def test_describing_a_model_asks_for_its_state_a_few_times_only(monkeypatch):
    """However many buffers it has: this happens in every evaluating forward."""
    model = nn.Sequential(*(nn.BatchNorm1d(4) for _ in range(8)))
    calls, state_dict = [], nn.Sequential.state_dict
    monkeypatch.setattr(
        nn.Sequential, "state_dict", lambda self, **named: calls.append(1) or state_dict(self, **named)
    )
    UniformQuantizer(model, min_size=0).stored_model()
    assert 1 <= len(calls) <= 2
