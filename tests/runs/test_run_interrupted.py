"""A run that is interrupted or killed goes on where it stopped, to the same bits."""

import json
import random
import signal
from pathlib import Path

import pytest
import torch
from helpers import warm
from helpers.run_configs import TINY, do, rows_of, timeless
from helpers.run_folders import payloads
from helpers.run_signals import interrupt_at

pytestmark = pytest.mark.usefixtures("same_commit")


# ---- interrupted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "number", "code"),
    [
        pytest.param(2, signal.SIGTERM, 143, marks=pytest.mark.long),
        (3, signal.SIGTERM, 143),
        (5, signal.SIGINT, 130),
    ],
)
def test_interrupted_is_gone_on_with(batch, number, code, finished, tmp_path, monkeypatch):
    """3 batches an epoch: within the first, at its end, within the second."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, batch, number)
        outcome = do(*TINY, root=tmp_path)
    first = outcome.result
    assert (outcome.code, first["status"]) == (code, "interrupted")
    assert "the same command goes on" in outcome.lines[-1]
    assert len(outcome.rows) == batch // 3 and "test" not in first
    again = do(*TINY, root=tmp_path)
    assert again.code == 0 and again.folder == outcome.folder
    assert timeless(again.rows) == timeless(finished.rows)
    assert payloads(again.folder) == payloads(finished.folder)
    own = {"seconds": 0, "run_id": "", "ended": ""}
    assert {**again.result, **own} == {**finished.result, **own}
    assert again.result["run_id"] == first["run_id"] != finished.result["run_id"]
    assert again.result["seconds"] > first["seconds"] > 0  # of both together


def test_a_second_ctrl_c_ends_it_at_once(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGINT, times=2)
        outcome = do(*TINY, root=tmp_path)
    assert (outcome.code, outcome.result["status"]) == (130, "interrupted")
    again = do(*TINY, root=tmp_path)
    assert again.code == 0
    assert payloads(again.folder) == payloads(finished.folder)


def test_ptq_interrupted_in_its_float32_run(tmp_path, monkeypatch, floats):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2, signal.SIGTERM)
        outcome = do(*TINY, "quantizer=ptq", root=tmp_path)
    assert outcome.code == 143 and not outcome.folder.exists()
    again = do(*TINY, "quantizer=ptq", root=tmp_path)
    assert again.code == 0
    source = again.folder.parent / floats.folder.name
    assert payloads(source) == payloads(floats.folder)


# ---- killed --------------------------------------------------------------------------------------------------


def test_the_seconds_of_a_killed_process_count_to_its_last_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4, signal.SIGTERM)
        outcome = do(*TINY, root=tmp_path)
    first, checkpoint = outcome.result, outcome.folder / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    assert 0 < state["seconds"] <= first["seconds"] + 0.01
    torch.save({**state, "seconds": 1000.0}, checkpoint)
    (outcome.folder / "result.json").write_text(json.dumps({**first, "status": "running", "seconds": 0.0}))
    assert 1000 < do(*TINY, root=tmp_path).result["seconds"] < 1000 + 60


# 45 steps, each followed by a checkpoint
LONG = (*TINY, "dataset.train_images=320", "dataset.test_images=32", "epochs=3", "optimizer=sgd", "clip=5")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_three_times_and_ended_once_it_ends_as_one_that_was_not(tmp_path):
    reference = do(*LONG, root=tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    tests = Path(__file__).parents[1]
    plan = [f"{number}:{random.randint(1, 7)}" for number in (9, 9, 15, 9)]  # signal, after how many checkpoints
    kills = str(tests / "helpers" / "run_kills.py")
    done = warm.run([kills, *plan, "--", *LONG, "checkpoint_minutes=1e-9"], tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    said = (tmp_path / "cut" / "said.txt").read_text()
    assert [line["code"] for line in lines] == [-9, -9, 143, -9, 0], (plan, said, done.stderr)
    assert [line["status"] for line in lines] == ["running", "running", "interrupted", "running", "finished"]
    assert not any(line["locked"] for line in lines)
    folder = tmp_path / "cut" / reference.folder.relative_to(tmp_path / "whole")
    assert payloads(folder) == payloads(reference.folder), plan
    assert timeless(rows_of(folder)) == timeless(reference.rows), plan
    result = json.loads((folder / "result.json").read_text())
    for key in ("status", "signature", "test", "val", "size_mb", "bits", "epochs", "seed"):
        assert result[key] == reference.result[key], key
    assert f"{result['test']['accuracy']:.4f}" in said and "the same command goes on" in said
