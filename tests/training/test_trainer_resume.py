"""Stopped anywhere and gone on with in fresh objects: the same bits as one that was never stopped."""

import json
import signal
from dataclasses import dataclass, field

import pytest
import torch
from helpers.run_configs import timeless
from helpers.run_pieces import CheckpointedNet, RandomNet, TinyNet, tiny_data, tiny_trainer

from diffq_exp.parallel.ranks import Ranks
from diffq_exp.tasks.classification import Classification
from diffq_exp.training import resume
from diffq_exp.training import trainer as loop
from diffq_exp.training.checkpoint import load_checkpoint
from diffq_exp.training.schedule import OneCycle
from diffq_exp.training.stopping import Interrupted, StopFlag

# 24 images in 3 batches of 8, 3 epochs: batches 1 to 9


class Killed(BaseException):
    """Ends a process at once, as SIGKILL does: nobody saves."""


class At(Classification):
    """Does something during one of the training batches, counted from 1 on."""

    def __init__(self, batch, act):
        super().__init__()
        self.left, self.act = batch, act

    def loss(self, outputs, targets):
        if outputs.requires_grad:
            self.left -= 1
            if self.left == 0:
                self.act()
        return super().loss(outputs, targets)


@dataclass
class Way:
    """What a trainer is made of."""

    keys: dict = field(default_factory=dict)
    batch_size: int = 8
    batches: int = 9

    def trainer(self, folder, seed=0, **more):
        data = tiny_data(batch_size=self.batch_size)
        return tiny_trainer(folder, seed=seed, data=data, **{"net": RandomNet, "clip": 5.0, **self.keys, **more})


WAYS = {
    "one optimizer": Way(),
    "two optimizers": Way({"optimizer": "sgd"}),
    "onecycle": Way({"optimizer": "sgd", "schedule": OneCycle()}),
    "param noise": Way({"quantizer": "uniform_noise"}),
    "lsq": Way({"quantizer": "lsq", "optimizer": "sgd"}),
    "rate": Way({"quantizer": "rate", "optimizer": "sgd"}),
    "layers that run again": Way({"net": CheckpointedNet}),
    "qat": Way({"quantizer": "qat"}),
    "none": Way({"quantizer": "none"}),
    "accumulate": Way({"accumulate": 2, "optimizer": "sgd"}, batch_size=5, batches=15),  # 5 batches: 2, 2, 1
    "bf16": Way({"precision": "bf16"}),
    "fp16": Way({"precision": "fp16", "optimizer": "sgd"}),
    "saved all the time": Way({"checkpoint_minutes": 1e-9}),
}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """{way: what it ends with}, done when first asked for."""
    ends = {}

    def end_of(name):
        if name not in ends:
            trainer = WAYS[name].trainer(tmp_path_factory.mktemp("whole"))
            trainer.fit(StopFlag())
            ends[name] = end(trainer)
        return ends[name]

    return end_of


def end(trainer):
    """Everything that has state at the end of a run, and its metrics."""
    kept = load_checkpoint(trainer.folder / "checkpoint.pt")
    rows = [json.loads(line) for line in (trainer.folder / "metrics.jsonl").read_text().splitlines()]
    assert same(kept["model"], dict(trainer.model.state_dict()))
    return {
        "model": kept["model"], "optimizers": kept["optimizers"], "scaler": kept["scaler"], "rng": kept["rng"],
        "place": kept["place"][:2], "run_id": kept["run_id"], "rows": timeless(rows),
    }  # fmt: skip


def same(one, other):
    """Equal bit by bit, through dicts and lists."""
    if isinstance(one, torch.Tensor):
        bits = one.dtype == other.dtype and one.shape == other.shape
        return bits and bytes(one.detach().numpy()) == bytes(other.detach().numpy())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def check_same(got, expected):
    for key in expected:
        assert same(got[key], expected[key]), key


def stop_at(way, folder, batch, seed=0, **more):
    """Train until the step with this batch is over (of this process), and let it save."""
    stop = StopFlag()
    trainer = way.trainer(folder, seed, task=At(batch, lambda: setattr(stop, "signal", signal.SIGTERM)), **more)
    with pytest.raises(Interrupted):
        trainer.fit(stop)
    return trainer


def kill_at(way, folder, batch, seed=0, **more):
    def die():
        raise Killed

    trainer = way.trainer(folder, seed, task=At(batch, die), **more)
    with pytest.raises(Killed):
        trainer.fit(StopFlag())
    return trainer


def go_on(way, folder, seed=99, **more):
    """With other seeds, and another name: all that counts has to come from the checkpoint."""
    trainer = way.trainer(folder, seed, run_id="second", **more)
    trainer.fit(StopFlag())
    return trainer


# ---- asked to stop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(
    "share", [pytest.param(0.1, marks=pytest.mark.long), 0.6, pytest.param(0.85, marks=pytest.mark.long)]
)
def test_stopped_and_gone_on(name, share, never_stopped, tmp_path):
    """At batches 1, 6 (the end of an epoch) and 8 of 9."""
    way = WAYS[name]
    stop_at(way, tmp_path, max(1, round(share * way.batches + 0.4)))
    check_same(end(go_on(way, tmp_path)), never_stopped(name))


@pytest.mark.parametrize(
    "batch", [pytest.param(batch, marks=[pytest.mark.long] * (batch not in (1, 5, 8))) for batch in range(1, 9)]
)
def test_stopped_at_any_batch(batch, never_stopped, tmp_path):
    way = WAYS["one optimizer"]
    stopped = stop_at(way, tmp_path, batch)
    assert [stopped.epoch, stopped.batch] == [batch // 3, batch % 3]  # at once, not at the epoch's end
    assert load_checkpoint(tmp_path / "checkpoint.pt")["place"][:2] == [batch // 3, batch % 3]
    check_same(end(go_on(way, tmp_path)), never_stopped("one optimizer"))


@pytest.mark.parametrize("name", ["one optimizer", "accumulate"])
def test_stopped_after_every_step(name, never_stopped, tmp_path):
    way = WAYS[name]
    for attempt in range(20):
        stop = StopFlag()
        stop.signal = signal.SIGTERM
        trainer = way.trainer(tmp_path, seed=attempt)
        try:
            trainer.fit(stop)
            break
        except Interrupted:
            pass
    assert attempt > 5
    check_same({**end(trainer), "run_id": "first"}, never_stopped(name))


def test_a_stop_during_the_last_step_of_all_comes_too_late(never_stopped, tmp_path):
    stop = StopFlag()
    way = WAYS["one optimizer"]
    trainer = way.trainer(tmp_path, task=At(9, lambda: setattr(stop, "signal", signal.SIGINT)))
    trainer.fit(stop)
    check_same(end(trainer), never_stopped("one optimizer"))


def test_gone_on_with_after_the_end_there_is_nothing_to_do(never_stopped, tmp_path):
    way = WAYS["one optimizer"]
    way.trainer(tmp_path).fit(StopFlag())

    def never():
        raise AssertionError("it trains again")

    check_same(end(go_on(way, tmp_path, task=At(1, never))), never_stopped("one optimizer"))


def test_the_run_keeps_its_name(tmp_path):
    way = WAYS["one optimizer"]
    stop_at(way, tmp_path, 4, run_id="abc")

    class Listener:
        def started(self, run_id, rows):
            self.got = run_id, [row["epoch"] for row in rows]

        def step(self, *args):
            pass

        def epoch(self, row):
            pass

    listener = Listener()
    go_on(way, tmp_path, listeners=[listener])
    assert listener.got == ("abc", [1])


def test_the_seconds_of_an_epoch_go_on(tmp_path):
    way = WAYS["one optimizer"]
    stop_at(way, tmp_path, 4)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    assert 0 < state["place"][2] < 60
    state["place"][2] = 1000.0
    torch.save(state, path)
    go_on(way, tmp_path)
    second = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert 1000 <= second["seconds"] < 1060 and second["examples_per_second"] < 0.1


# ---- killed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one optimizer", "two optimizers", "accumulate", "saved all the time"])
@pytest.mark.parametrize(
    "share", [pytest.param(share, marks=[pytest.mark.long] * (share != 0.7)) for share in (0.1, 0.5, 0.7, 1.0)]
)
def test_killed_and_gone_on(name, share, never_stopped, tmp_path):
    way = WAYS[name]
    batch = max(1, round(share * way.batches))
    kill_at(way, tmp_path, batch)
    if name == "saved all the time" and batch > 1:
        place = load_checkpoint(tmp_path / "checkpoint.pt")["place"]
        assert place[0] * 3 + place[1] == batch - 1
    # killed in the first epoch there is no checkpoint: it starts again, as it did
    seed = 99 if (tmp_path / "checkpoint.pt").exists() else 0
    got = end(go_on(way, tmp_path, seed=seed))
    check_same({**got, "run_id": "first"}, never_stopped(name))


def test_killed_again_and_again(never_stopped, tmp_path):
    way = WAYS["saved all the time"]
    kill_at(way, tmp_path, 2)
    for seed, batch in enumerate((1, 2, 1, 3, 2)):
        kill_at(way, tmp_path, batch, seed)
    check_same(end(go_on(way, tmp_path)), never_stopped("saved all the time"))


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_between_row_and_checkpoint(epoch, never_stopped, tmp_path, monkeypatch):
    """The row of an epoch is there, its checkpoint is not: the row is computed and written again."""
    way = WAYS["one optimizer"]
    trainer = way.trainer(tmp_path)

    def die(saved):
        if saved.epoch == epoch:
            raise Killed
        resume.save(saved)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "save", die)
        trainer.fit(StopFlag())
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == epoch
    got = end(go_on(way, tmp_path, seed=0 if epoch == 1 else 99))
    check_same({**got, "run_id": "first"}, never_stopped("one optimizer"))


def test_a_signal_while_ranks_agree_stops_the_next_step(tmp_path):
    """It is neither lost, nor does it stop this rank alone where the others go on."""
    stop, places = StopFlag(), []

    class Slow(Ranks):
        def largest(self, *numbers):
            if len(numbers) == 2:  # signal, and whether to save
                places.append((trainer.epoch, trainer.batch))
                stop.signal = signal.SIGTERM
            return list(numbers)

    trainer = WAYS["one optimizer"].trainer(tmp_path)
    trainer.ranks = Slow()
    with pytest.raises(Interrupted):
        trainer.fit(stop)
    assert len(places) == 2 and stop.signal == signal.SIGTERM
    assert load_checkpoint(tmp_path / "checkpoint.pt")["place"][:2] == list(places[1])


def test_checkpoints_within_an_epoch_only_after_the_minutes(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    way, places = WAYS["one optimizer"], []
    trainer = way.trainer(tmp_path, checkpoint_minutes=2.0, epochs=1)
    step = trainer._step

    def slow(*args):
        step(*args)
        now[0] += 70.0  # 70, 140 (above 120), 210

    trainer._step = slow
    monkeypatch.setattr(loop, "save", lambda saved: places.append((saved.epoch, saved.batch)))
    trainer.fit(StopFlag())
    assert places == [(0, 2), (1, 0)]


# ---- metrics.jsonl ------------------------------------------------------------------------------------------


def spoil_rows(path, how):
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    row = json.loads(lines[-1])
    further = json.dumps({**row, "epoch": 2, "train": {"loss": 123.0, "accuracy": 1.0}}) + "\n"
    return {
        "rows beyond": text + further + further,
        "cut last line": text + further[: len(further) // 2],
        "cut within a character": text + '{"epoch": 2, "x": "',
        "no newline at the end": text + further.rstrip("\n"),
    }[how]


@pytest.mark.parametrize("how", ["rows beyond", "cut last line", "cut within a character", "no newline at the end"])
@pytest.mark.parametrize("batch", [3, 4])
def test_metrics_are_cut_back_to_the_checkpoint(how, batch, never_stopped, tmp_path):
    way = WAYS["one optimizer"]
    stop_at(way, tmp_path, batch)
    path = tmp_path / "metrics.jsonl"
    path.write_text(spoil_rows(path, how))
    check_same(end(go_on(way, tmp_path)), never_stopped("one optimizer"))


def test_metrics_of_a_run_without_a_checkpoint_start_anew(never_stopped, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "train": {"loss": 5}}\n')
    trainer = WAYS["one optimizer"].trainer(tmp_path)
    trainer.fit(StopFlag())
    check_same(end(trainer), never_stopped("one optimizer"))


# ---- a checkpoint that is none ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "not a checkpoint", "cut"])
def test_a_corrupt_checkpoint_is_named_and_left_alone(content, tmp_path):
    way = WAYS["one optimizer"]
    stop_at(way, tmp_path, 4)
    path = tmp_path / "checkpoint.pt"
    data = path.read_bytes()[:-1000] if content == "cut" else content.encode()
    path.write_bytes(data)
    rows = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ValueError) as caught:
        way.trainer(tmp_path).fit(StopFlag())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == data and (tmp_path / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("state", [{}, {"model": {}}])
def test_a_checkpoint_that_lacks_parts_is_named(state, tmp_path):
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError) as caught:
        WAYS["one optimizer"].trainer(tmp_path).fit(StopFlag())
    assert str(tmp_path / "checkpoint.pt") in str(caught.value)


def test_a_checkpoint_holds_what_the_next_process_needs(tmp_path):
    trainer = stop_at(WAYS["two optimizers"], tmp_path, 5)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert set(state["model"]) == set(trainer.model.state_dict())
    assert {name for name in state["model"] if name.endswith("_diffq")} == set(trainer.quantizer.learned())
    assert "norm.running_mean" in state["model"]
    assert len(state["optimizers"]) == 2 and all(one["state"] for one in state["optimizers"])
    assert {"torch", "numpy", "python", "cuda"} <= set(state["rng"])
    assert state["run_id"] == "first"


def test_a_network_without_randomness_goes_on_too(tmp_path):
    """Not by luck of the generators: of TinyNet only weights and optimizer count."""
    way = Way({"net": TinyNet, "quantizer": "none", "optimizer": "plain"})
    whole = way.trainer(tmp_path / "whole")
    whole.fit(StopFlag())
    stop_at(way, tmp_path / "cut", 5)
    got, expected = end(go_on(way, tmp_path / "cut")), end(whole)
    check_same({key: got[key] for key in ("model", "rows")}, {key: expected[key] for key in ("model", "rows")})
