"""A loss or a weight that is not finite ends the run, names its step, and reaches no checkpoint."""

import math

import pytest
import torch
from helpers.run_pieces import tiny_data, tiny_trainer
from helpers.trainer_views import finite, rows_in
from torch.optim import SGD

from diffq_exp.tasks.classification import Classification
from diffq_exp.training.checkpoint import load_checkpoint
from diffq_exp.training.optim import Optimizers
from diffq_exp.training.stopping import Diverged, StopFlag


class NanAt(Classification):
    """Its loss is NaN at one of its calls in training."""

    def __init__(self, call, value=math.nan):
        super().__init__()
        self.left, self.value = call, value

    def loss(self, outputs, targets):
        loss = super().loss(outputs, targets)
        if not outputs.requires_grad:
            return loss
        self.left -= 1
        return loss * self.value if self.left == 0 else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("call", "epoch", "step"), [(1, 1, 1), (3, 1, 3), (5, 2, 2), (9, 3, 3)])
def test_diverged_names_epoch_and_step_though_it_is_read_later(call, epoch, step, value, tmp_path):
    trainer = tiny_trainer(tmp_path, task=NanAt(call, value))
    with pytest.raises(Diverged) as caught:
        trainer.fit(StopFlag())
    assert (caught.value.epoch, caught.value.step) == (epoch, step)
    assert len(rows_in(tmp_path)) == epoch - 1
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    if epoch == 1:
        assert kept is None
    else:
        assert kept["place"][:2] == [epoch - 1, 0]
        assert finite(kept["model"])


def test_diverged_counts_steps_not_batches(tmp_path):
    trainer = tiny_trainer(tmp_path, task=NanAt(5), accumulate=2, data=tiny_data(batch_size=4))  # 6 batches
    with pytest.raises(Diverged) as caught:
        trainer.fit(StopFlag())
    assert (caught.value.epoch, caught.value.step) == (1, 3)


def test_a_rate_too_high_diverges(tmp_path):
    trainer = tiny_trainer(tmp_path, optimizer="plain", quantizer="none")
    trainer.optimizers = Optimizers([SGD(trainer.model.parameters(), lr=1e30)])
    with pytest.raises(Diverged):
        trainer.fit(StopFlag())


def test_a_checkpoint_within_an_epoch_is_of_a_finite_loss(tmp_path):
    """Saved after every step, but not after one that went wrong."""
    trainer = tiny_trainer(tmp_path, task=NanAt(5), checkpoint_minutes=1e-9)
    with pytest.raises(Diverged):
        trainer.fit(StopFlag())
    kept = load_checkpoint(tmp_path / "checkpoint.pt")
    assert kept["place"][:2] == [1, 1] and finite(kept["model"])


def test_a_stop_asked_for_after_it_diverged_saves_nothing_bad(tmp_path):
    trainer = tiny_trainer(tmp_path, task=NanAt(4))
    stop = StopFlag()
    first = trainer._step

    def step(number, batches, steps):
        first(number, batches, steps)
        if trainer.epoch == 1:
            stop.signal = 15

    trainer._step = step
    with pytest.raises(Diverged):
        trainer.fit(stop)
    assert finite(load_checkpoint(tmp_path / "checkpoint.pt")["model"])


class BadGradient(torch.autograd.Function):
    """Nothing wrong with the loss; its gradient is NaN."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * math.nan


def test_a_bad_gradient_of_an_epochs_last_step_does_not_reach_the_checkpoint(tmp_path):
    """The loss of the step is finite; its weights no longer are. "The last good checkpoint kept"."""

    class Task(NanAt):
        def loss(self, outputs, targets):
            self.left -= outputs.requires_grad
            loss = Classification.loss(self, outputs, targets)
            return BadGradient.apply(loss) if self.left == 0 and outputs.requires_grad else loss

    trainer = tiny_trainer(tmp_path, task=Task(6))
    with pytest.raises(Diverged):
        trainer.fit(StopFlag())
    assert finite(load_checkpoint(tmp_path / "checkpoint.pt")["model"])
