"""Runs on two gloo ranks of this machine, beside the same run on one."""

from __future__ import annotations

import signal

import pytest
from helpers.rank_runs import on_ranks
from helpers.run_configs import TINY, do, rows_of, timeless
from helpers.run_folders import payloads
from helpers.wandb_runs import epochs, stored_in

from diffq_exp.common.files import read_json

SCORES = ("loss", "accuracy")


def check_alike(one, two, within):
    """Rows of metrics of the same run on one rank and on two."""
    assert len(one) == len(two)
    for ours, theirs in zip(one, two, strict=True):
        for part in ("train", "val"):
            for score in SCORES:
                assert ours[part][score] == pytest.approx(theirs[part][score], abs=within), (ours, theirs)
        assert ours["size_mb"] == pytest.approx(theirs["size_mb"], abs=within)


def test_without_noise_two_ranks_train_as_one(tmp_path):
    words = (
        *TINY,
        "noise=none",
        "sync_batch_norm=true",
        "batch_size=20",
        "dataset.train_images=56",  # batches of 20, 20 and 2 images: of the last one the second rank has none
        "average_decay=0.9",
        "batch_norm_batches=2",
    )
    two = on_ranks(tmp_path / "two", *words)
    assert two.codes == [0, 0], two.said(0) + two.said(1)
    one = do(*words, root=tmp_path / "one")
    assert one.folder.name == two.run.name
    check_alike(one.rows, rows_of(two.run), 1e-5)
    assert two.bits(0) == two.bits(1) and len(two.bits(0)) == 2
    result = read_json(two.run / "result.json")
    assert result["status"] == "finished" and result["test"] == pytest.approx(one.result["test"], abs=1e-5)
    assert "epoch" in two.said(0) and two.said(1) == ""


@pytest.mark.long
@pytest.mark.parametrize("quantizer", ["none", "diffq"])
def test_the_loss_curve_of_the_digits_is_that_of_one_rank(tmp_path, quantizer):
    words = (
        "epochs=3",
        f"quantizer={quantizer}",
        "sync_batch_norm=true",
        "threads=1",
        "device=cpu",
        "tracking=none",
    )
    words += ("model._target_=helpers.rank_runs.SmoothNet", "quantizer.min_size=0")[: 1 + (quantizer == "diffq")]
    words += ("noise=none", "penalty=5") if quantizer == "diffq" else ()
    two, one = on_ranks(tmp_path / "two", *words), do(*words, root=tmp_path / "one")
    assert two.codes == [0, 0], two.said(0) + two.said(1)
    check_alike(one.rows, rows_of(two.run), 1e-5)
    assert two.bits(0) == two.bits(1)


@pytest.mark.long
def test_each_rank_has_noise_of_its_own_and_the_same_network(tmp_path):
    two = on_ranks(tmp_path, *TINY, "quantizer.min_size=0", "clip=1.0", "accumulate=2", "scheduler=cosine")
    again = on_ranks(
        tmp_path / "again", *TINY, "quantizer.min_size=0", "clip=1.0", "accumulate=2", "scheduler=cosine"
    )
    assert two.codes == again.codes == [0, 0], two.said(0) + two.said(1)
    assert two.bits(0) == two.bits(1) == again.bits(0)
    assert payloads(two.run) == payloads(again.run)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_other_and_the_same_command_goes_on(tmp_path, rank):
    words = (*TINY, "epochs=40", "average_decay=0.9")
    dead = on_ranks(tmp_path / "dead", *words, kill=[rank, signal.SIGKILL, 4])
    assert dead.codes[rank] == -signal.SIGKILL and dead.codes[1 - rank] == 1
    assert dead.seconds < 60
    (line,) = [line for line in dead.said(1 - rank).splitlines() if line.startswith(("failed:", "rank 1: failed:"))]
    assert "another rank" in line
    rows = len(rows_of(dead.run))
    again = on_ranks(tmp_path / "dead", *words)
    whole = on_ranks(tmp_path / "whole", *words)
    assert again.codes == whole.codes == [0, 0] and 0 < rows < 40
    assert "goes on after epoch" in again.said(0)
    assert timeless(rows_of(again.run)) == timeless(rows_of(whole.run))
    assert payloads(again.run) == payloads(whole.run)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_a_rank_stops_all_where_they_can_go_on(tmp_path, rank):
    words = (*TINY, "epochs=40")
    stopped = on_ranks(tmp_path, *words, kill=[rank, signal.SIGTERM, 3])
    assert stopped.codes == [128 + signal.SIGTERM] * 2
    assert read_json(stopped.run / "result.json")["status"] == "interrupted"
    one = do(*words, root=tmp_path)
    assert one.code == 0 and "goes on with 1 ranks instead of 2" in one.text
    assert len(one.rows) == 40


@pytest.mark.long
def test_a_run_that_diverges_ends_on_all_ranks(tmp_path):
    ended = on_ranks(tmp_path, *TINY, "quantizer=none", "lr=1e30", "epochs=3")
    assert ended.codes == [1, 1]
    assert read_json(ended.run / "result.json")["status"] == "diverged" and ended.said(1) == ""


@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [
        ("quantizer=lsq", "target_mb=0.12", "bits=8"),
        ("quantizer=diffq", "target_ratio=6", "average_decay=0.9"),
        ("quantizer=rate", "penalty=20", "round_penalty=10", "batch_norm_batches=2", "storage.float=auto"),
        ("quantizer=rate", "target_ratio=12", "batch_norm_batches=2"),
        ("quantizer=ptq", "bits=4", "target_ratio=5"),
        ("quantizer=qat", "teacher=float32", "init_from=float32", "bits=3"),
    ],
    ids=lambda words: words[0],
)
def test_what_is_steered_fitted_and_rounded_is_agreed(tmp_path, words):
    ended = on_ranks(tmp_path, *TINY, "epochs=4", *words)
    assert ended.codes == [0, 0], ended.said(0) + ended.said(1)
    assert ended.bits(0) == ended.bits(1)
    (run,) = [path for path in (tmp_path / "outputs").iterdir() if "-none-" not in path.name]
    assert read_json(run / "result.json")["status"] == "finished"


@pytest.mark.long
def test_an_error_on_one_rank_is_told_once_with_its_reason(tmp_path):
    own = ("model._target_=helpers.rank_runs.FailsOnRank1", "+model.where=forward")
    ended = on_ranks(tmp_path / "forward", *TINY, "quantizer=none", *own)
    assert ended.codes == [1, 1]
    assert "failed: rank 1: ZeroDivisionError: on purpose" in ended.said(0) and ended.said(1) == ""
    own = ("model._target_=helpers.rank_runs.FailsOnRank1", "+model.where=build")
    ended = on_ranks(tmp_path / "build", *TINY, "quantizer=none", *own)
    assert ended.codes == [1, 1]
    assert "failed: rank 1: ZeroDivisionError: on purpose" in ended.said(0) and ended.said(1) == ""
    assert "on purpose" in read_json(ended.run / "result.json")["reason"]


@pytest.mark.long
def test_the_first_rank_alone_tracks(tmp_path):
    ended = on_ranks(tmp_path, *TINY, "tracking=wandb", "tracking.mode=offline", WANDB_MODE="offline")
    assert ended.codes == [0, 0], ended.said(0)
    assert epochs(stored_in(ended.run)) == [1, 2]


@pytest.mark.long
def test_a_finished_run_is_shown_again_by_the_first(tmp_path):
    first, again = on_ranks(tmp_path, *TINY), on_ranks(tmp_path, *TINY)
    assert first.codes == again.codes == [0, 0]
    assert "is finished already" in again.said(0) and again.said(1) == ""
