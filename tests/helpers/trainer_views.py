"""What tests of the trainer look at: its rows, its state, its batches, and a listener."""

import json

import torch


class Collect:
    """Listens to a trainer."""

    def __init__(self):
        self.run_id, self.steps, self.rows, self.earlier = None, [], [], None

    def started(self, run_id, rows):
        self.run_id, self.earlier = run_id, rows

    def step(self, epoch, done, steps, means):
        self.steps.append((epoch, done, steps, means))

    def epoch(self, row):
        self.rows.append(row)


def rows_in(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state_of(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def batches_of(trainer, epoch=0):
    return list(trainer.data.train.epoch(epoch))


def finite(state):
    return all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
