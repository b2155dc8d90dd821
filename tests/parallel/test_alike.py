"""What has to be equal on all ranks, and what each of them needs: told in one line before the first step."""

import json
import platform
from unittest import mock

import pytest
import torch
from helpers.rank_runs import on_ranks
from helpers.run_configs import TINY, ask, listening
from helpers.run_pieces import TinyNet, tiny_data
from torch import nn

from diffq_exp.parallel.alike import check_commands, check_starts, devices_error
from diffq_exp.parallel.batch_norm import ON_CPU, together_in
from diffq_exp.parallel.ranks import Ranks
from diffq_exp.runs.data_record import check_alike
from diffq_exp.runs.run import run
from diffq_exp.tasks.classification import Classification
from diffq_exp.train import main
from diffq_exp.training.measure import evaluate, own_share
from diffq_exp.training.shared_loss import SharedLoss


class Two(Ranks):
    """The second of two ranks; of the first one comes `other`, or what this one says."""

    rank, world = 1, 2

    def __init__(self, other=None):
        self.other, self.said = other, []

    def every(self, value):
        self.said.append(value)
        return [value if self.other is None else self.other, value]


def view_of(data):
    ranks = Two()
    check_alike(data, ranks)
    return ranks.said[0]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"images": 16},
            r"train \(12 images in 2 batches, .*, there 24 images in 3 batches, .*\); val \(4 images in 1",
        ),
        (
            {"data_seed": 1},
            r"train \(24 images in 3 batches, digest \w{16}, there 24 images in 3 batches, digest \w",
        ),
        ({"val_fraction": 0}, r"train \(32 .*; val \(none, there 8 images in 1 batches\)$"),
        ({"batch_size": 5}, r"train \(24 images in 5 batches, .*there 24 images in 3 batches"),
        ({"classes": 3}, r"model \(\{'num_classes': 3, "),
    ],
)
def test_other_data_on_a_rank_are_named(changes, told):
    data = tiny_data()
    check_alike(data, Two(view_of(tiny_data())))
    with pytest.raises(
        ValueError, match=rf"^the data must be equal on all ranks; rank 1 \(.*\) has others .*{told}"
    ):
        check_alike(data, Two(view_of(tiny_data(**changes))))


@pytest.mark.long
def test_ranks_with_other_data_end_before_the_first_step(tmp_path):
    own = "dataset._target_=helpers.rank_runs.other_on_rank1"
    ended = on_ranks(tmp_path, *TINY, "quantizer=none", own)
    assert ended.codes == [2, 2] and ended.said(1) == ""
    assert "failed: the data must be equal on all ranks; rank 1" in ended.said(0)
    assert not (ended.run / "metrics.jsonl").exists()


@pytest.mark.parametrize("word", ["restart=false", "restart=true"])
def test_another_command_on_a_rank_is_named(word, tmp_path):
    typed = ask(*TINY, word, root=tmp_path)
    signature = typed.folder.name.rpartition("-")[2]
    first = (("0123456789", False), "host", [*typed.request.overrides[:-1], "seed=3"])
    with listening() as lines:
        assert run(typed.cfg, typed.folder, typed.request, ranks=Two(first)) == 2
    (line,) = lines
    assert line == (
        f"the command must be equal on all ranks; rank 1 ({platform.node()}) has {word} "
        f"(signature {signature}), rank 0 seed=3 (signature 0123456789)"
    )


def test_overrides_that_are_no_part_of_a_run_may_differ():
    check_commands(Two((("0123456789", False), "host", ["num_workers=2"])), "0123456789", False, ["num_workers=8"])
    with pytest.raises(ValueError, match=r"rank 1 .* has restart=true \(signature 01\), rank 0 nothing more"):
        check_commands(Two((("01", False), "host", [])), "01", True, ["restart=true"])


class Shelf(dict):
    """A store whose ranks have all spoken."""

    set = dict.__setitem__

    def get(self, key):
        return self[key].encode()


def starts(*told):
    """Let each rank, of which the last is this one, tell its device and its mistake."""
    store = Shelf()
    for rank, (kind, mistake) in enumerate(told):
        store.set(f"start of {rank}", json.dumps([kind, mistake, f"host{rank}"]))
    with mock.patch("platform.node", lambda: f"host{len(told) - 1}"):
        check_starts(store, len(told) - 1, len(told), *told[-1])


def test_the_first_rank_stays_until_all_have_seen(monkeypatch):
    """It may be the one that serves the store."""
    store, read = Shelf(), []
    monkeypatch.setattr(Shelf, "get", lambda self, key: read.append(key) or self[key].encode())
    store |= {"start of 1": json.dumps(["cpu", "bad", "host"]), "seen by 1": ""}
    with pytest.raises(ValueError, match="bad"):
        check_starts(store, 0, 2, "cpu", None)
    assert read[-2:] == ["seen by 0", "seen by 1"]
    assert "seen by 0" in store


def test_a_mistake_of_one_rank_ends_all():
    starts(("cpu", None), ("cpu", None))
    for told in ([("cpu", None), ("cpu", "bad")], [("cpu", None), ("cpu", "bad"), ("cpu", None)]):
        with pytest.raises(ValueError, match=r"^rank 1 \(host1\): bad$"):
            starts(*told)
    with pytest.raises(ValueError, match=r"^bad$"):
        starts(("cpu", "bad"), ("cpu", "bad"))
    with pytest.raises(ValueError, match="rank 0 computes on cuda, rank 1 on cpu"):
        starts(("cuda", None), ("cpu", None))


@pytest.mark.parametrize(("local", "said"), [("0", 1), ("1", 0)])
def test_a_mistake_in_a_command_is_told_once_on_each_machine(local, said, monkeypatch, capsys):
    places = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": "2"}
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    assert main(["experiment=quick", "batch_size=63"]) == 2
    assert capsys.readouterr().err.count("error: batch_size=63") == said


def test_ranks_compute_on_devices_of_one_kind():
    assert devices_error(["cuda", "cuda"]) is devices_error(["cpu"]) is None
    told = "rank 0 computes on cuda, rank 2 on cpu; device=cpu puts all ranks on the CPU"
    assert devices_error(["cuda", "cuda", "cpu", "cpu"]) == told


# ---- what a rank needs ------------------------------------------------------------------------------------------


def shared(data, model=None):
    return SharedLoss(Two(), model or TinyNet(), lambda *_: torch.zeros(()), data.train, Classification())


def test_too_few_examples_for_the_ranks_are_named():
    with pytest.raises(ValueError, match=r"^3 examples to train on: 2 ranks need 2 each; start fewer ranks$"):
        shared(tiny_data(images=3, classes=1, val_fraction=0))
    assert shared(tiny_data(images=4, classes=1, val_fraction=0))


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_rank_without_an_example_computes_those_of_the_first(batch_size):
    """batch_size=2: this rank has none in any batch."""
    data = tiny_data(batch_size=batch_size)
    empty = torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64)
    ((inputs, targets, weight),) = shared(data).weighted([empty])
    assert len(inputs) == len(targets) == min(batch_size, 4) and weight == 0


def test_such_examples_count_in_no_statistics(monkeypatch):
    """A norm over two ranks of which this one has a spare batch: its sums are those of no example."""
    torch.manual_seed(0)
    model, sums = nn.Sequential(nn.BatchNorm2d(3)), []
    model[0].__class__ = ON_CPU[nn.BatchNorm2d]
    others = torch.randn(4, 3, 5, 5)

    def summed(value):
        sums.append(value)
        return (
            value
            + (100.0, others.sum((0, 2, 3)), (others - others.mean((0, 2, 3), True)).square().sum((0, 2, 3)))[
                len(sums) - 1
            ]
        )

    monkeypatch.setattr("diffq_exp.parallel.batch_norm._sum_of_ranks", summed)
    (norm,) = together_in(model)
    norm.counted = False
    out = model(torch.randn(2, 3, 5, 5) + 7)
    assert all(float(value.abs().sum()) == 0 for value in sums) and len(sums) == 3
    assert out.isfinite().all() and out.shape == (2, 3, 5, 5)
    plain = nn.BatchNorm2d(3)
    plain(others)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)


def test_the_share_of_what_is_evaluated_is_made_once(monkeypatch):
    data, model = tiny_data(), TinyNet()
    made = []
    share = type(data.val).share
    monkeypatch.setattr(type(data.val), "share", lambda self, part: made.append(part) or share(self, part))
    val = own_share(data.val, Two())
    for _ in range(3):
        evaluate(model, val, Classification(), Two())
    assert len(made) == 1
