"""The task of classification: loss and scores against plain formulas."""

import math

import pytest
import torch

from diffq_exp.tasks.classification import Classification


def test_loss_is_the_mean_cross_entropy():
    outputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 4, 2, 2, 1, 3])
    logs = outputs.double() - outputs.double().exp().sum(1, keepdim=True).log()
    expected = -sum(float(logs[row, target]) for row, target in enumerate(targets)) / 6
    loss = Classification().loss(outputs, targets)
    assert loss.shape == () and float(loss) == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_mixes_in_the_other_classes():
    outputs, targets = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = torch.log_softmax(outputs.double(), 1)[0]
    expected = -(0.8 * logs[0] + 0.2 * logs.mean())
    assert float(Classification(0.2).loss(outputs, targets)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs_are_judged_in_float32(dtype):
    outputs = torch.tensor([[0.0, 40.0]], dtype=dtype)
    loss = Classification().loss(outputs, torch.tensor([0]))
    assert loss.dtype == torch.float32 and float(loss) == pytest.approx(40.0, rel=1e-4)


def test_scores_are_sums_over_the_batch():
    outputs = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    scores = Classification().scores(outputs, torch.tensor([1, 0, 1, 1]))
    assert {name: float(value) for name, value in scores.items()} == {"accuracy": 3.0}


@pytest.mark.parametrize(("classes", "has_top5"), [(5, False), (19, False), (20, True), (100, True)])
def test_top5_from_20_classes_on(classes, has_top5):
    scores = Classification().scores(torch.randn(3, classes), torch.tensor([0, 1, 2]))
    assert ("accuracy_top5" in scores) is has_top5


def test_top5_counts_targets_among_the_five_largest():
    outputs = torch.arange(20.0).flip(0).repeat(4, 1)  # class 0 is the likeliest, then 1, 2, ...
    scores = Classification().scores(outputs, torch.tensor([0, 4, 5, 19]))
    assert int(scores["accuracy"]) == 1 and int(scores["accuracy_top5"]) == 2


def test_a_loss_that_is_not_finite_stays_so():
    outputs = torch.tensor([[math.nan, 0.0]])
    assert not torch.isfinite(Classification().loss(outputs, torch.tensor([0])))
