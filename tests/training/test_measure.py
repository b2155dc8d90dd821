"""Evaluation: means over all examples, in eval mode, and nothing else changes."""

import pytest
import torch
from helpers.run_pieces import RandomNet, tiny_data
from torch import nn
from torch.nn import functional

from diffq_exp.tasks.classification import Classification
from diffq_exp.training.measure import evaluate


def test_evaluate_is_the_mean_over_all_images_in_eval_mode():
    torch.manual_seed(0)
    model = RandomNet().train()
    data = tiny_data(test_images=11, batch_size=4)  # 4, 4, 3
    got = evaluate(model, data.test, Classification())
    assert model.training  # put back
    model.eval()
    images = torch.cat([x for x, _ in data.test.epoch(0)])
    targets = torch.cat([y for _, y in data.test.epoch(0)])
    outputs = model(images)
    assert got["loss"] == pytest.approx(functional.cross_entropy(outputs, targets).item(), rel=1e-6)
    assert got["accuracy"] == pytest.approx(((outputs.argmax(1) == targets).sum() / 11).item())


def test_evaluate_puts_the_mode_back_after_an_exception():
    class Fails(nn.Module):
        def forward(self, images):
            raise ZeroDivisionError

    model = Fails().train()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, tiny_data().test, Classification())
    assert model.training


def test_evaluate_leaves_generators_and_gradients_alone():
    model = RandomNet()
    before = torch.get_rng_state()
    evaluate(model, tiny_data().test, Classification())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(param.grad is None for param in model.parameters())
