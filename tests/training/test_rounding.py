"""Rate-distortion rounding, against a loss whose derivatives are known."""

from __future__ import annotations

import pytest
import torch
from helpers.batches import Batches
from torch import nn

from diffq_exp.quant import LSQ, RateQuantizer, UniformQuantizer
from diffq_exp.quant.coded_bits import bits_of_a_step, estimated_bits
from diffq_exp.tasks import as_task
from diffq_exp.tasks.classification import Classification
from diffq_exp.training import rounding
from diffq_exp.training.rounding import round_levels

TASK = as_task(Classification())


def rounded(penalty: float, kind=RateQuantizer, **options):
    """A quantizer of a small network after rounding, its levels before and after, and the counts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    quantizer = kind(model, **options)
    quantizer.no_optimizer()
    quantizer.at(1.0)
    before = levels_of(quantizer)
    moved = round_levels(quantizer, TASK, Batches(classes=3), penalty, 3)
    return quantizer, before, levels_of(quantizer), moved


def levels_of(quantizer):
    levels = {}
    for item in quantizer.selection.quantized:
        stored = quantizer.store(item, item.param)
        levels[item.name] = stored.values() / stored.scales[-1]
        if stored.grid == "step":
            levels[item.name].round_()
    return levels


@pytest.mark.parametrize("kind", [RateQuantizer, LSQ])
def test_levels_move_towards_zero_and_the_counts_say_how_many(kind):
    options = {} if kind is RateQuantizer else {"bits": 4, "min_size": 0, "exclude": ["*.bias"]}
    _, before, after, moved = rounded(1e4, kind, **options)
    assert set(moved) == {"0.weight", "2.weight"} and sum(moved.values()) > 0
    for name, levels in before.items():
        change = after[name] - levels
        assert int((change != 0).sum()) == moved[name]
        assert ((change == 0) | (change.sign() == -levels.sign())).all() and change.abs().max() <= 3
        assert (after[name] * levels >= -1e-6).all()


def test_moves_that_cost_more_together_than_they_save_are_taken_back(monkeypatch):
    monkeypatch.setattr(rounding, "bits_of_a_step", lambda sizes: torch.full_like(sizes, 1e9))
    _, before, after, moved = rounded(1.0)
    assert moved == {} and all(torch.equal(before[name], after[name]) for name in before)


def test_what_it_gains_in_bytes_is_worth_its_loss():
    """The training loss plus the penalty on the estimated bytes falls."""
    penalty = 2e3

    @torch.no_grad()
    def cost(quantizer):
        loss = sum(TASK.loss(quantizer.model.eval()(x), y) for x, y in Batches(classes=3).epoch(0)) / 3
        return float(loss + penalty * quantizer.true_model_size())

    untouched, _, _, _ = rounded(-1.0)
    changed, _, _, moved = rounded(penalty)
    assert sum(moved.values()) > 3
    assert cost(changed) < cost(untouched)


def test_grids_without_a_step_are_left_alone():
    quantizer, before, after, moved = rounded(1e9, UniformQuantizer, bits=4, min_size=0)
    assert moved == {} and all(torch.equal(before[name], after[name]) for name in before)
    assert not quantizer.model[0].weight.grad


def test_the_price_of_a_step_is_the_slope_of_the_estimate():
    torch.manual_seed(0)
    sizes = (torch.randn(6, 5, 3, 3).abs() * 2).floor().requires_grad_()
    estimated_bits(sizes).sum().backward()
    assert torch.allclose(sizes.grad, bits_of_a_step(sizes))
    assert bits_of_a_step(torch.zeros(4)).shape == (4,)
