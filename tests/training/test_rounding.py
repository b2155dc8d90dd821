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
    """A quantizer of a small network after rounding, its levels before and after, and how many steps they moved."""
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
def test_levels_move_towards_zero_and_the_steps_are_counted(kind):
    options = {} if kind is RateQuantizer else {"bits": 4, "min_size": 0, "exclude": ["*.bias"]}
    _, before, after, moved = rounded(1e4, kind, **options)
    assert set(before) == {"0.weight", "2.weight"} and moved > 0
    changes = {name: after[name] - levels for name, levels in before.items()}
    assert sum(float(change.abs().sum()) for change in changes.values()) == moved
    for name, levels in before.items():
        assert ((changes[name] == 0) | (changes[name].sign() == -levels.sign())).all()
        assert (after[name] * levels >= -1e-6).all()


def test_the_levels_that_cost_least_for_their_bits_move_first(monkeypatch):
    monkeypatch.setattr(rounding, "SHARES", (0.25,))
    monkeypatch.setattr(rounding, "PASSES", 1)
    monkeypatch.setattr(rounding, "bits_of_a_step", torch.ones_like)
    _, before, after, moved = rounded(1e4)
    assert 0 < moved < sum(int((levels != 0).sum()) for levels in before.values()) / 2
    untouched, _, _, _ = rounded(0.0)
    squares = dict.fromkeys(before, 0.0)  # the loss of a step towards zero, but for a factor that all share
    with untouched.enter_quantize():
        for inputs, targets in Batches(classes=3).epoch(0):
            untouched.model.eval().zero_grad()
            TASK.loss(untouched.model(inputs), targets).backward()
            for item in untouched.selection.quantized:
                scale = untouched.store(item, item.param.detach()).scales[-1]
                squares[item.name] = squares[item.name] + (item.param.grad * scale) ** 2
    gone = torch.cat([squares[name][after[name] != before[name]] for name in before])
    left = torch.cat([squares[name][(after[name] == before[name]) & (before[name] != 0)] for name in before])
    assert gone.max() <= left.min() * (1 + 1e-5)


def test_a_level_whose_bits_are_worth_less_than_its_loss_stays():
    """The prices of one step in units of what its bits are worth, by hand."""
    penalty, batches = 50.0, Batches(classes=3)
    quantizer, levels, _, _ = rounded(0.0)
    model = quantizer.model.eval()
    squares = torch.zeros_like(model[2].weight)
    with quantizer.enter_quantize():
        for inputs, targets in batches.epoch(0):
            model.zero_grad()
            TASK.loss(model(inputs), targets).backward()
            squares += 8 * model[2].weight.grad ** 2 / 3  # 8 examples in each of 3 batches
    item = quantizer.selection.quantized[1]
    step = quantizer.store(item, item.param.detach()).scales[-1]
    worth = bits_of_a_step(levels[item.name].abs()) * penalty / 2**23
    prices = squares * step**2 / 2 / worth
    [_, grid] = grids = [rounding._Grid(quantizer, item) for item in quantizer.selection.quantized]
    assert grid.item is item
    found = rounding._Rounding(quantizer, grids, TASK, batches, penalty, 3).prices()[1]
    stays = (levels[item.name] == 0) | (squares == 0)
    assert torch.allclose(found[~stays], prices[~stays], rtol=1e-4) and found[stays].isinf().all()
    too_dear = [torch.full_like(grid.item.param, 1.5) for grid in grids]
    assert rounding._move(grids, too_dear, 1.0) == 0


def test_what_no_batch_has_stays():
    """Rows of an embedding without a gradient cost nothing on the batches, and all elsewhere."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(16, 3))
    quantizer = RateQuantizer(model)
    quantizer.no_optimizer()
    quantizer.at(1.0)
    batches = Batches(classes=3)
    batches.batches = [torch.randint(0, 10, (8, 2)) for _ in range(3)]  # words 10 to 19 are in none
    before = levels_of(quantizer)["0.weight"]
    moved = round_levels(quantizer, TASK, batches, 1e5, 3)
    after = levels_of(quantizer)["0.weight"]
    assert moved > 0 and not torch.equal(before[:10], after[:10]) and torch.equal(before[10:], after[10:])


def test_moves_that_cost_more_together_than_they_save_are_taken_back(monkeypatch):
    monkeypatch.setattr(rounding, "bits_of_a_step", lambda sizes: torch.full_like(sizes, 1e9))
    monkeypatch.setattr(rounding, "SHARES", (1.0,))
    _, before, after, moved = rounded(1e-3)
    assert moved == 0 and all(torch.equal(before[name], after[name]) for name in before)


def test_a_network_that_knows_its_examples_by_heart_is_rounded_too():
    """Its gradients are noise, its Fisher matrix is next to nothing: only the order of the moves can be trusted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
    quantizer = LSQ(model, bits=4, min_size=0, exclude=["*.bias"])
    optimizer = torch.optim.Adam(quantizer.base_parameters(), lr=1e-2)
    quantizer.setup_optimizer(optimizer)
    batches = list(Batches(classes=3).epoch(0))
    for _ in range(300):
        for inputs, targets in batches:
            optimizer.zero_grad()
            TASK.loss(model(inputs), targets).backward()
            optimizer.step()
    losses = []
    sizes = []
    for _ in range(2):
        with torch.no_grad():
            losses.append(max(float(TASK.loss(model.eval()(x), y)) for x, y in batches))
        sizes.append(sum(float(estimated_bits(levels.abs()).sum()) for levels in levels_of(quantizer).values()))
        round_levels(quantizer, TASK, Batches(classes=3), 300.0, 3)
    assert losses[0] < 0.01 and losses[1] < 0.02 and sizes[1] < 0.93 * sizes[0], (losses, sizes)


def test_what_it_gains_in_bytes_is_worth_its_loss():
    """The training loss plus the penalty on the estimated bytes falls."""
    penalty = 2e3

    @torch.no_grad()
    def cost(quantizer):
        loss = sum(TASK.loss(quantizer.model.eval()(x), y) for x, y in Batches(classes=3).epoch(0)) / 3
        return float(loss + penalty * quantizer.true_model_size())

    untouched, _, _, _ = rounded(0.0)
    changed, _, _, moved = rounded(penalty)
    assert moved > 3
    assert cost(changed) < cost(untouched)


def test_grids_without_a_step_are_left_alone():
    quantizer, before, after, moved = rounded(1e9, UniformQuantizer, bits=4, min_size=0)
    assert moved == 0 and all(torch.equal(before[name], after[name]) for name in before)
    assert not quantizer.model[0].weight.grad


def test_the_price_of_a_step_is_the_slope_of_the_estimate():
    torch.manual_seed(0)
    sizes = (torch.randn(6, 5, 3, 3).abs() * 2).floor().requires_grad_()
    estimated_bits(sizes).sum().backward()
    assert torch.allclose(sizes.grad, bits_of_a_step(sizes))
    assert bits_of_a_step(torch.zeros(4)).shape == (4,)
