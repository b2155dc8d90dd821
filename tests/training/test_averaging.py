"""Averages of weights: their values, their state, and what a run stores."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from diffq_exp.training.averaging import Averages


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def step(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def test_the_first_steps_are_a_plain_mean_and_later_ones_decay():
    model = network()
    averages = Averages(model, 0.5)
    expected = model[0].bias.detach().clone()
    for number, value in enumerate((1.0, 4.0, -2.0, 8.0, 0.0, 3.0, 5.0, 1.0, 2.0, 7.0, 6.0), 1):
        step(model, value)
        averages.update()
        share = 1 - min(0.5, number / (number + 9))
        expected += share * (value - expected)
    with averages.in_model():
        assert torch.allclose(model[0].bias, expected)
        assert torch.allclose(model[1].running_var[0], model[0].bias[0], atol=0.5)
        assert model[1].num_batches_tracked == 6
    assert (model[0].bias == 6).all()


def test_a_state_continues_exactly():
    model = network()
    averages = Averages(model, 0.9)
    step(model, 1.0)
    averages.update()
    other = Averages(copy.deepcopy(model), 0.9)
    other.load_state_dict(averages.state_dict())
    step(model, 2.0)
    averages.update()
    for tensor in other.values:
        tensor.data.fill_(2.0)
    other.update()
    assert all(torch.equal(one, two) for one, two in zip(averages.means, other.means, strict=True))


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, float("nan")])
def test_a_decay_outside_of_0_to_1_is_refused(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Averages(network(), decay)
