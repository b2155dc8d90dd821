"""What a trainer takes from a checkpoint: rows of metrics that were lost, and nothing that does not fit."""

import logging

import pytest
import torch
from helpers.run_configs import timeless
from helpers.run_pieces import TinyNet, tiny_trainer

from diffq_exp.results.metrics import read_rows
from diffq_exp.training.averaging import Averages
from diffq_exp.training.checkpoint import load_checkpoint, save_checkpoint
from diffq_exp.training.stopping import Interrupted, StopFlag


def stopped_after(epochs, folder, **keys):
    """A trainer that was asked to stop at the end of an epoch; -> its rows."""
    trainer, stop = tiny_trainer(folder, **keys), StopFlag()

    class Stop:
        def started(self, run_id, rows):
            pass

        def step(self, *args):
            pass

        def epoch(self, row):
            stop.signal = 15 if row["epoch"] == epochs else None

    trainer.listeners = [Stop()]
    with pytest.raises(Interrupted):
        trainer.fit(stop)
    return read_rows(folder / "metrics.jsonl")


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1, "tr', None])
def test_rows_that_the_file_lost_come_from_the_checkpoint(content, tmp_path):
    rows, path = stopped_after(2, tmp_path), tmp_path / "metrics.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    tiny_trainer(tmp_path).fit(StopFlag())
    kept = read_rows(path)
    assert kept[:2] == rows and [row["epoch"] for row in kept] == [1, 2, 3]


def test_of_an_older_checkpoint_lost_rows_are_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffq_exp"), "propagate", True)  # which the tests of runs turn off
    rows, path = stopped_after(2, tmp_path), tmp_path / "checkpoint.pt"
    state = load_checkpoint(path)
    del state["metrics"]
    save_checkpoint(path, state)
    with caplog.at_level(logging.WARNING, "diffq_exp"):
        tiny_trainer(tmp_path).fit(StopFlag())
    assert timeless(read_rows(tmp_path / "metrics.jsonl")[:2]) == timeless(rows) and not caplog.records
    save_checkpoint(path, state)
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "diffq_exp"):
        tiny_trainer(tmp_path).fit(StopFlag())
    (text,) = {record.getMessage() for record in caplog.records}
    assert "has rows of 0 epochs, 2 were trained" in text


class Counting(TinyNet):
    """Has a state that is no tensor, on which its outputs depend."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, images):
        self.seen += self.training
        return super().forward(images) * (1 + self.seen / 10)

    def get_extra_state(self):
        return {"seen": self.seen}

    def set_extra_state(self, state):
        self.seen = state["seen"]


def test_what_a_module_adds_to_its_state_goes_on(tmp_path):
    way = {"net": Counting, "quantizer": "none"}
    whole = tiny_trainer(tmp_path / "whole", **way)
    whole.fit(StopFlag())
    stopped_after(2, tmp_path / "cut", **way)
    again = tiny_trainer(tmp_path / "cut", seed=9, **way)
    again.fit(StopFlag())
    assert again.model.seen == whole.model.seen == 9
    assert torch.equal(again.model.head.weight, whole.model.head.weight)


WRONG = {
    "place": [[], [1], ["a", 0, 0.0], [99, 0, 0.0], [0, 99, 0.0], [-1, 0, 0.0], [None, None, None]],
    "sums": [[], [1, [2]], ["a", {}], [1, {"loss": 3}], [1, {"loss": torch.zeros(7)}]],
    "model": [{}, {"conv.weight": torch.zeros(2)}],
    "optimizers": [[], [3], [{"state": 3, "param_groups": []}], [{}]],
    "rng": [{}, {"torch": 3}, {"torch": torch.zeros(3)}],
    "averages": [None, {}, {"steps": 1, "means": []}],
}


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in WRONG.items() for value in values])
def test_a_part_of_another_shape_is_one_line(part, value, saved, tmp_path):
    """Never a TypeError, and never another training in silence."""
    trainer, state = saved
    trainer.folder = tmp_path
    save_checkpoint(tmp_path / "checkpoint.pt", {**state, part: value})
    with pytest.raises(ValueError, match=r"checkpoint that does not fit this run") as caught:
        trainer.fit(StopFlag())
    assert str(tmp_path / "checkpoint.pt") in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).endswith("without this file, training begins anew")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A trainer with averages, and the state that one of its kind has left."""
    folder = tmp_path_factory.mktemp("saved")
    stopped_after(1, folder)
    trainer, state = tiny_trainer(folder), load_checkpoint(folder / "checkpoint.pt")
    trainer.averages = Averages(trainer.model, 0.9)
    return trainer, {**state, "averages": trainer.averages.state_dict()}


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_moments_of_another_shape_are_refused(name, saved, tmp_path):
    """torch would compute with them."""
    trainer, state = saved
    trainer.folder = tmp_path
    (first, *_), shape = state["optimizers"], (3, 3)
    changed = {**first, "state": {**first["state"], 0: {**first["state"][0], name: torch.zeros(shape)}}}
    save_checkpoint(tmp_path / "checkpoint.pt", {**state, "optimizers": [changed, *state["optimizers"][1:]]})
    with pytest.raises(ValueError, match=rf"{name} of an optimizer has shape \(3, 3\)"):
        trainer.fit(StopFlag())
