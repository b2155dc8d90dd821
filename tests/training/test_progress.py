"""A quantizer hears before each step which share of training is done, also in a run that is resumed."""

import pytest
import torch
from helpers.run_pieces import TinyNet, tiny_trainer

from diffq_exp.quant import UniformQuantizer
from diffq_exp.training.stopping import Interrupted, StopFlag


class Listening(UniformQuantizer):
    """Rounds in the second half of training only, and notes what it hears."""

    def __init__(self, model):
        super().__init__(model, bits=3, min_size=0.0005, qat=True)
        self.heard = []

    def at(self, progress):
        super().at(progress)
        self.heard.append(progress)

    def training_value(self, item):
        return super().training_value(item) if self.progress >= 0.5 else None


def listening_trainer(folder, **settings):
    """24 images, 3 batches in an epoch."""
    trainer = tiny_trainer(folder, quantizer="none", **settings)
    trainer.quantizer = Listening(trainer.model)
    return trainer


def test_steps_have_the_share_before_them_and_the_end_of_an_epoch_has_its_own(tmp_path):
    trainer = listening_trainer(tmp_path, epochs=2)
    trainer.fit(StopFlag())
    sixths = [
        0,
        1,
        2,
        3,
        3,
        4,
        5,
        6,
        6,
    ]  # a row is measured at the end of an epoch; the last is the end of training
    assert trainer.quantizer.heard == pytest.approx([sixth / 6 for sixth in sixths])


def test_steps_of_several_batches_count_once(tmp_path):
    trainer = listening_trainer(tmp_path, epochs=1, accumulate=2)
    trainer.fit(StopFlag())
    assert trainer.quantizer.heard == [0, 0.5, 1, 1]


def test_a_resumed_run_goes_on_to_the_bit_and_hears_the_same(tmp_path):
    whole = listening_trainer(tmp_path / "whole", epochs=3)
    whole.fit(StopFlag())
    stop = StopFlag()
    first = listening_trainer(tmp_path / "parts", epochs=3)
    step = first._step

    def until_the_fifth(number, batches, steps):
        step(number, batches, steps)
        if first.epoch == 1 and number == 2:
            stop.signal = 15

    first._step = until_the_fifth
    with pytest.raises(Interrupted):
        first.fit(stop)
    second = listening_trainer(tmp_path / "parts", epochs=3)
    second.fit(StopFlag())
    assert first.quantizer.heard + second.quantizer.heard == whole.quantizer.heard
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.model.state_dict().items())


def test_a_run_with_nothing_left_to_train_hears_of_the_end(tmp_path):
    listening_trainer(tmp_path, epochs=1).fit(StopFlag())
    again = listening_trainer(tmp_path, epochs=1)
    again.fit(StopFlag())
    assert again.quantizer.heard == [1.0]
    without = listening_trainer(tmp_path / "none", epochs=0)
    without.fit(StopFlag())
    assert without.quantizer.heard == [1.0]


def test_evaluation_follows_progress_where_the_stored_form_does():
    class Finer(UniformQuantizer):
        def store(self, item, weight):
            self.width = 1.0 if self.progress < 1 else 8.0
            return super().store(item, weight)

    model = TinyNet()
    quantizer = Finer(model, min_size=0.0005)
    before = len(quantizer.stored_model().value("head.weight").unique())
    quantizer.at(1.0)
    assert before == 2 < len(quantizer.stored_model().value("head.weight").unique())
