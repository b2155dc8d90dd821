"""Learned tensors: any number for a weight, of any shape, each kind with its own options in an optimizer."""

import copy
import pickle

import pytest
import torch
from helpers.quant_models import Net, TwoNames, images
from torch.optim import SGD, Adam

from diffq_exp.quant import Learned, UniformQuantizer, quantizer_of
from diffq_exp.training.optim import make_optimizers
from diffq_exp.training.schedule import Cosine


class Affine(UniformQuantizer):
    """A scalar offset and a factor for each row, besides the levels; only the factor has a rate of its own."""

    method = "affine"

    def learned_tensors(self, weight):
        rows = torch.ones(weight.param.shape[0])
        return {"_offset": Learned(torch.tensor(0.5)), "_rows": Learned(rows, {"lr": 0.25, "weight_decay": 0.0})}

    def training_value(self, item):
        rows = self.learned_tensor(item, "_rows").view(-1, *[1] * (item.param.dim() - 1))
        return item.param * rows + self.learned_tensor(item, "_offset")


def affine(model, **options):
    return Affine(model, min_size=0, exclude=["*.bias", "norm.*"], **options)


def rates(groups):
    return {tuple(sorted({len(param.shape) for param in group["params"]})): group.get("lr") for group in groups}


def test_they_stand_beside_their_weights_and_train():
    model = Net()
    quantizer = affine(model)
    assert {name: tuple(tensor.shape) for name, tensor in quantizer.learned().items()} == {
        "conv.weight_offset": (), "conv.weight_rows": (6,), "head.weight_offset": (), "head.weight_rows": (5,),
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="Affine trains parameters of its own: call setup_optimizer"):
        model(images())
    optimizer = SGD(model.conv.parameters(recurse=False), lr=0.1)
    with pytest.raises(RuntimeError, match="holds parameters of the Affine already"):
        quantizer.setup_optimizer(SGD(model.parameters(), lr=0.1))
    optimizer = SGD([model.conv.weight], lr=0.1)
    quantizer.setup_optimizer(optimizer)
    before = copy.deepcopy(model.state_dict())
    model(images()).square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], tensor) for name, tensor in quantizer.learned().items())
    quantizer.clear_optimizer(optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


@pytest.mark.parametrize(
    ("given", "offset", "rows"),
    [
        ({}, 0.1, 0.25),
        ({"lr": 0.5}, 0.5, 0.5),
        ({"lr": {"_offset": 0.7}}, 0.7, 0.25),
        ({"momentum": 0.9}, 0.1, 0.25),
    ],
)
def test_a_group_for_each_kind_with_its_rate(given, offset, rows):
    model = Net()
    quantizer = affine(model)
    optimizer = SGD([model.conv.weight], lr=0.1, weight_decay=0.3)
    quantizer.setup_optimizer(optimizer, **given)
    _, first, second = optimizer.param_groups
    assert (first["lr"], second["lr"]) == (offset, rows)
    assert (first["weight_decay"], second["weight_decay"]) == (0.3, 0.0)
    assert first["momentum"] == given.get("momentum", 0)


def test_a_rate_for_a_kind_that_is_not_learned_is_refused():
    model = Net()
    with pytest.raises(ValueError, match=r"lr names '_column'; the learned tensors are _offset, _rows"):
        affine(model).setup_optimizer(SGD([model.conv.weight], lr=0.1), lr={"_column": 1.0})


def test_in_a_run_schedules_leave_their_own_rates_alone():
    model = Net()
    optimizers, quantizer = make_optimizers(model, lambda params: SGD(params, lr=0.1), lambda: affine(model), {})
    assert [type(optimizer) for optimizer in optimizers.optimizers] == [SGD, Adam]
    rate = {id(p): group["lr"] for group in optimizers.param_groups for p in group["params"]}
    optimizers.set_rates(Cosine(), 5, 10)
    later = {id(p): group["lr"] for group in optimizers.param_groups for p in group["params"]}
    for name, tensor in quantizer.learned().items():
        factor = later[id(tensor)] / rate[id(tensor)]
        assert factor == pytest.approx(1.0 if name.endswith("_rows") else 0.5)


@pytest.mark.parametrize("suffix", ["", ".x"])
def test_a_suffix_that_cannot_end_a_name(suffix):
    class Odd(UniformQuantizer):
        def learned_tensors(self, weight):
            return {suffix: Learned(torch.zeros(1))}

    model = Net()
    names = list(model.state_dict())
    with pytest.raises(ValueError, match="suffix must be a non-empty string without a dot"):
        Odd(model, min_size=0)
    assert list(model.state_dict()) == names and not model._forward_pre_hooks


def test_copies_have_their_own_and_detach_takes_them_out():
    model = TwoNames()
    affine(model).no_optimizer()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        own = quantizer_of(twin)
        assert own is not quantizer_of(model) and own.model is twin and own.attachment.owner is own
        with torch.no_grad():
            own.learned()["a.weight_rows"].mul_(3)
        assert not torch.equal(twin(torch.ones(2, 6)), model(torch.ones(2, 6)))
    quantizer_of(model).detach()
    assert sorted(model.state_dict()) == ["a.weight", "b.weight"] and not model._forward_hooks
