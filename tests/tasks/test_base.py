"""What a task is by default, and objects of before there were headlines."""

import pytest
import torch
from helpers.run_pieces import OwnTask, tiny_data

from diffq_exp.data import Data
from diffq_exp.results.headline import Headline
from diffq_exp.tasks import Classification, Task, as_task


def test_a_task_reports_an_accuracy_and_counts_targets_unless_it_says_otherwise():
    task = Classification()
    assert task.headline(tiny_data(classes=4)) == Headline(chance=0.25)
    assert task.count(torch.zeros(7, 3)) == 7
    assert task.finish({"loss": 1.5}) == {"loss": 1.5}


def test_without_classes_chance_is_not_known():
    loader = tiny_data().train
    data = Data("made", train=loader, val=None, test=loader)
    assert Classification().headline(data).chance is None


def test_an_object_with_loss_and_scores_is_a_task():
    outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
    task = as_task(OwnTask(margin=0.5))
    assert isinstance(task, Task) and task.headline(tiny_data(classes=2)).name == "accuracy"
    assert task.loss(outputs, targets) == OwnTask(margin=0.5).loss(outputs, targets)
    assert {name: int(value) for name, value in task.scores(outputs, targets).items()} == {
        "accuracy": 1,
        "class_0": 1,
    }
    assert as_task(task) is task


def test_an_object_without_them_is_refused():
    with pytest.raises(ValueError, match="dict is no task: it needs the methods loss and scores"):
        as_task({})
