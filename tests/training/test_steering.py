"""A penalty, or a width, that is steered until the file has its size."""

import json
import math

import pytest
import torch
from helpers.run_configs import TINY, do
from helpers.run_folders import payloads
from helpers.run_signals import interrupt_at

from diffq_exp.quant import DiffQuantizer
from diffq_exp.quant.size import FormulaSize
from diffq_exp.training.penalty import Penalty
from diffq_exp.training.steering import FROZEN, GAIN, LEAST, POWER, RAMP, SteeredPenalty, SteeredWidth
from diffq_exp.training.target import Target

MB = 2**20


class Scales:
    """In the place of a file: as large as it is told."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> int:
        return self.size


def steered(start=100_000, target=10_000):
    quantizer = DiffQuantizer(torch.nn.Linear(100, 250, bias=False), min_size=0)
    penalty = SteeredPenalty(Target(target, Scales(start), 100), FormulaSize())
    penalty.begin(quantizer)
    return quantizer, penalty


def test_the_aim_falls_to_a_little_less_than_the_target_in_the_first_part():
    _, penalty = steered()
    assert penalty.aim(0) == pytest.approx(100_000) and penalty.aim(RAMP) == pytest.approx(9_600)
    assert math.log(penalty.aim(RAMP / 2) / 9_600) == pytest.approx(2**-POWER * math.log(100_000 / 9_600))
    assert penalty.aim(RAMP + 0.01) == penalty.aim(1) == pytest.approx(9_600)
    assert steered(start=5_000)[1].aim(0) == 9_600  # a file that is small enough may stay so


def test_the_first_penalty_is_a_tenth_of_the_loss_for_the_target():
    quantizer, penalty = steered()
    expected = 0.1 * MB / 10_000 * float(quantizer.model_size().detach())
    assert float(penalty(quantizer, 0.0).detach()) == pytest.approx(expected, rel=1e-4)


def test_the_penalty_rises_while_the_file_is_too_large_and_then_stays():
    quantizer, penalty = steered()  # whose size never changes, though the aim falls
    weights = []
    for step in range(100):
        penalty(quantizer, step / 100)
        weights.append(penalty.log_weight)
    frozen = int(100 * FROZEN)
    assert weights[0] + 2 < weights[20] + 1 < weights[40] < weights[60] < weights[frozen - 1] == weights[-1]


@pytest.mark.parametrize(("error", "kept"), [(-0.08, 0.0), (0.08, 0.0), (-0.3, -0.3), (0.3, 0.3)])
def test_what_the_last_step_is_off_by_does_not_stay_to_the_end(error, kept):
    """A penalty that is small for a moment would stay so; one that is off, as the file is too small, stays off."""
    quantizer, penalty = steered()
    penalty.integral, penalty.progress, penalty.error = 1.0, FROZEN - 0.01, error
    penalty(quantizer, FROZEN)
    assert penalty.error == kept and penalty.log_weight == math.log(0.1 * MB / 10_000) + 1.0 + GAIN * kept
    assert (penalty.weight == 0) == (kept == -0.3)


def test_the_error_is_of_the_levels_and_not_of_what_the_file_has_beside_them():
    quantizer, penalty = steered(start=20_000, target=10_000)
    penalty.target = Target(10_000, Scales(20_000), rest := 8_000)
    penalty.begin(quantizer)
    penalty.integral, penalty.progress = 0.0, 0.5
    penalty(quantizer, 0.5)
    assert penalty.log_weight - math.log(0.1 * MB / 10_000) == pytest.approx(
        GAIN * math.log(12_000 / (9_600 - rest))
    )
    penalty.target = Target(9_000, Scales(20_000), rest)  # which leaves them next to nothing
    penalty(quantizer, 0.5)
    assert penalty.error == pytest.approx(math.log(12_000 / (LEAST * 0.96 * 9_000)))


def test_the_penalty_falls_where_the_file_is_too_small():
    quantizer, penalty = steered(start=100_000, target=10_000)
    penalty.target.file_bytes.size = 2_000
    penalty.epoch_ended(quantizer, 0.5)
    before = penalty.log_weight
    for step in range(50, 60):
        penalty(quantizer, step / 100)
    assert penalty.log_weight < before - 1
    assert float(penalty(quantizer, 0.6).detach()) == penalty.weight == 0  # far too small: none at all
    penalty.target.file_bytes.size = 9_000
    penalty.epoch_ended(quantizer, 0.6)
    penalty(quantizer, 0.61)
    assert 0 < penalty.weight < math.exp(penalty.log_weight)


def test_a_row_has_penalty_file_and_error():
    quantizer, penalty = steered()
    penalty(quantizer, 0.5)
    penalty.target.file_bytes.size = 20_000
    row = penalty.epoch_ended(quantizer, 0.5)["steering"]
    assert row["file_mb"] == 20_000 / MB and row["error"] == pytest.approx(math.log(2 / 0.96))
    assert row["penalty"] == penalty.weight > 0


def test_a_state_gives_the_same_penalties():
    quantizer, penalty = steered()
    for step in range(20):
        penalty(quantizer, step / 100)
    other = SteeredPenalty(penalty.target, FormulaSize())
    other.load_state_dict(json.loads(json.dumps(penalty.state_dict())), quantizer)
    for step in range(20, 40):
        assert float(other(quantizer, step / 100).detach()) == float(penalty(quantizer, step / 100).detach())


def test_a_penalty_that_is_not_steered_has_no_state():
    quantizer, _ = steered()
    plain = Penalty(1.0, FormulaSize(), type("Constant", (), {"factor": lambda self, progress: 1.0})())
    plain.begin(quantizer)
    assert plain.state_dict() == {} and plain.epoch_ended(quantizer, 1.0) == {}


def test_a_width_is_part_of_the_state():
    quantizer, _ = steered()
    width = SteeredWidth(Target(10, Scales(10), 1))
    width.load_state_dict({"start": 7.0, "file": 8.0, "coarsened": 2.5}, quantizer)
    assert quantizer.coarsened == 2.5 and width.state_dict() == {"start": 7.0, "file": 8.0, "coarsened": 2.5}
    assert float(width(quantizer, 0.5)) == 0


# ---- by the command ---------------------------------------------------------------------------------------------

RUNS = {  # what is typed -> the least share of the target that the file has
    "quantizer=diffq target_mb=0.12": 0.97,
    "quantizer=diffq target_ratio=8": 0.97,
    "quantizer=rate target_mb=0.06": 0.97,
    "quantizer=lsq target_mb=0.12": 0.8,
    "quantizer=qat target_mb=0.12": 0.8,
    "quantizer=ptq target_mb=0.12": 0.8,
}


QUICK = ("quantizer=diffq target_mb=0.12", "quantizer=rate target_mb=0.06")
RUNS_OR_LONG = [pytest.param(typed, marks=[pytest.mark.long] * (typed not in QUICK)) for typed in RUNS]


@pytest.mark.parametrize("typed", RUNS_OR_LONG)
def test_the_file_ends_at_its_target(typed, tmp_path):
    outcome = do(*TINY, *typed.split(), "storage.coding=auto", root=tmp_path)
    record = outcome.result
    target = 2.0**20 * record["target_mb"]
    assert (outcome.code, record["status"], record["target_met"]) == (0, "finished", True)
    size = (outcome.folder / "model.safetensors").stat().st_size
    assert RUNS[typed] * target <= size <= target
    assert any("% of it are used" in line for line in outcome.lines)
    if "ptq" not in typed:
        assert all(row["steering"].keys() >= {"file_mb", "error"} for row in outcome.rows)


@pytest.mark.parametrize(
    "typed",
    ["quantizer=diffq target_mb=0.12", pytest.param("quantizer=lsq target_mb=0.12", marks=pytest.mark.long)],
)
def test_interrupted_in_mid_steering_it_ends_with_the_same_bytes(typed, tmp_path, monkeypatch):
    words = (*TINY, *typed.split())
    whole = do(*words, root=tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, 15)
        assert do(*words, root=tmp_path / "cut").code == 143
    again = do(*words, root=tmp_path / "cut")
    assert again.code == 0 and payloads(again.folder) == payloads(whole.folder)


@pytest.mark.parametrize("target", [0.0001, 0.005])  # the second fits while batch norms are constant, as at first
def test_a_target_below_what_no_levels_cost_is_refused_and_leaves_nothing(target, tmp_path):
    words = ("quantizer=rate", "min_size=0", "storage.coding=auto", f"target_mb={target}")
    outcome = do(*TINY, *words, root=tmp_path)
    assert outcome.code == 2 and not outcome.folder.exists()
    assert any(
        f"target_mb={target:g}: the file has" in line and "without any levels" in line for line in outcome.lines
    )


def test_a_target_out_of_reach_is_told_loudly(tmp_path):
    outcome = do(*TINY, "quantizer=diffq", "min_bits=7", "target_ratio=7", root=tmp_path)
    assert (outcome.code, outcome.result["status"], outcome.result["target_met"]) == (0, "finished", False)
    assert any("is NOT met" in line for line in outcome.lines)
