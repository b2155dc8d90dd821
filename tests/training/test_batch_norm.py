"""Statistics of batch norms measured again, and dead channels."""

from __future__ import annotations

import pytest
import torch
from helpers.batches import Batches
from torch import nn

from diffq_exp.quant import UniformQuantizer
from diffq_exp.training.batch_norm import measure_batch_norms


def network(after: nn.Module) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), after, nn.Dropout(0.5), nn.Linear(6, 2))


def test_statistics_are_those_of_the_stored_weights_over_the_first_batches():
    model = network(nn.ReLU())
    quantizer = UniformQuantizer(model, bits=2, min_size=0, exclude=["1.*"])
    model.train()
    measure_batch_norms(model, Batches(), 2)
    with quantizer.enter_quantize(), torch.no_grad():
        seen = [model[0](batch) for batch in Batches().batches[:2]]
    assert torch.allclose(model[1].running_mean, torch.stack([one.mean(0) for one in seen]).mean(0), atol=1e-6)
    assert torch.allclose(model[1].running_var, torch.stack([one.var(0) for one in seen]).mean(0), atol=1e-6)
    assert model.training and model[1].training and model[3].training and model[1].momentum == 0.1


@pytest.mark.parametrize("training", [True, False])
def test_a_network_without_statistics_is_left_alone(training):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_batch_norms(model, Batches(), 3)
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("after", "kept"), [(nn.ReLU(), False), (nn.SiLU(), True)])
def test_a_dead_channel_has_the_weight_0_and_the_bias_0_where_nobody_sees_it(after, kept):
    model = network(after)
    with torch.no_grad():
        model[0].weight[2:4] = 0.0
        model[1].bias[:] = torch.tensor([1.0, -1.0, -0.5, 0.5, 1.0, -1.0])
    measure_batch_norms(model, Batches(), 3)
    assert model[1].weight[2:4].tolist() == [0.0, 0.0] and (model[1].weight[[0, 1, 4, 5]] == 1).all()
    assert model[1].bias.tolist() == [1.0, -1.0, -0.5 if kept else 0.0, 0.5, 1.0, -1.0]
