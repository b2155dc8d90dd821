"""The loss with a teacher, against the formula written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffq_exp.tasks import Task
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.distillation import Teacher

TASK = Classification()


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4)])
def test_the_loss_is_that_of_the_formula_and_so_is_its_gradient(shape):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(5, 4))
    inputs = torch.randn(*shape[:-1], 5)
    outputs = torch.randn(shape, requires_grad=True)
    source = Teacher(model, 0.3, 2.0)
    loss = source.loss(TASK, torch.tensor(1.5), outputs, source(inputs))
    teacher = (model[1](inputs).detach() / 2).softmax(-1)
    distance = (teacher * (teacher.log() - (outputs / 2).log_softmax(-1))).sum(-1).mean()
    assert torch.allclose(loss, 0.7 * 1.5 + 0.3 * 4 * distance)
    (gradient,) = torch.autograd.grad(loss, outputs)
    positions = outputs.numel() / 4
    assert torch.allclose(gradient, 0.3 * 2 * ((outputs / 2).softmax(-1) - teacher) / positions, atol=1e-6)
    assert all(not param.requires_grad for param in model.parameters())


def test_a_network_that_predicts_as_its_teacher_has_no_distance():
    model = nn.Linear(5, 4)
    inputs = torch.randn(3, 5)
    loss = Teacher(model, 1.0, 3.0).loss(TASK, torch.tensor(9.0), model(inputs), model(inputs))
    assert float(loss) == pytest.approx(0, abs=1e-6)


def test_a_teacher_of_other_classes_is_refused():
    teacher = Teacher(nn.Linear(5, 3), 0.5, 2.0)
    with pytest.raises(ValueError, match=r"the teacher gives \(2, 3\), the network \(2, 4\)"):
        teacher.loss(TASK, torch.tensor(0.0), torch.zeros(2, 4), teacher(torch.zeros(2, 5)))


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (1.1, 1.0), (0.5, 0.0), (0.5, -1.0)])
def test_arguments_out_of_range_are_refused(weight, temperature):
    with pytest.raises(ValueError, match="0 < weight <= 1 and temperature > 0"):
        Teacher(nn.Identity(), weight, temperature)


def test_logits_of_half_precision_are_compared_in_float32():
    teacher = Teacher(nn.Linear(5, 4).bfloat16(), 1.0, 1.0)
    inputs = torch.randn(2, 5).bfloat16()
    outputs = torch.randn(2, 4)
    told = teacher.model(inputs).float()
    expected = F.kl_div(outputs.log_softmax(1), told.log_softmax(1), reduction="batchmean", log_target=True)
    assert torch.allclose(teacher.loss(TASK, torch.tensor(0.0), outputs, teacher(inputs)), expected)


def test_a_task_says_how_far_its_outputs_are_from_those_of_a_teacher():
    class Angle(Task):
        def loss(self, outputs, targets):
            return F.mse_loss(outputs, targets)

        def scores(self, outputs, targets):
            return {}

        def distance(self, outputs, taught, temperature):
            return F.mse_loss(outputs, taught)

    teacher, inputs, outputs = Teacher(nn.Linear(5, 1), 0.25, 4.0), torch.randn(3, 5), torch.randn(3, 1)
    expected = 0.75 * 2 + 0.25 * (outputs - teacher.model(inputs)).square().mean()
    assert torch.allclose(teacher.loss(Angle(), torch.tensor(2.0), outputs, teacher(inputs)), expected)
