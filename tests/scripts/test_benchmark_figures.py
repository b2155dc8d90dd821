"""scripts/benchmark.py: its rounds, and what data path and growth compute from what they measure."""

import pytest
import torch
from benchmarks import common, data_path, growth
from benchmarks.common import Context, Rounds, over
from torch import nn

# ---- rounds and figures -----------------------------------------------------------------------------------------


def test_rounds_rotate_and_do_not_count_the_warm_ones():
    called: list[str] = []

    def call(name: str) -> int:
        called.append(name)
        return len(called)

    calls = {name: lambda name=name: call(name) for name in "abc"}
    results = Rounds(warm=1, least=3, most=3, seconds=0).run(calls)
    assert "".join(called) == "abc" + "abc" + "bca" + "cab"
    assert results == {"a": [4, 9, 11], "b": [5, 7, 12], "c": [6, 8, 10]}


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 2), (4.5, 4), (100, 9)])
def test_rounds_end_before_their_seconds_are_overspent(monkeypatch, seconds, rounds):
    clock = [0.0]
    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])

    def a_second() -> None:
        clock[0] += 1

    assert len(Rounds(warm=0, least=2, most=9, seconds=seconds).run({"only": a_second})["only"]) == rounds


def test_ratios_are_those_of_a_round():
    """A machine that is three times as slow in one round changes no ratio."""
    ratio = over([1.1, 3.3, 1.2], [1.0, 3.0, 1.0])
    assert (ratio.median, ratio.rounds) == (pytest.approx(1.1), 3)
    assert common.at_most(1.1, 1.1)["met"] is True
    assert common.at_most(1.11, 1.1) == {"goal": "<= 1.1", "met": False}


# ---- data -------------------------------------------------------------------------------------------------------


def test_data_path():
    speed, likeness = data_path.data_path(Context(torch.device("cpu"), quick=True)).rows
    assert speed.goal == ">= 10" and speed.detail["ratio"]["rounds"] == 2
    assert likeness.met, likeness.here


@pytest.mark.parametrize("outcome", [0, 1, 2 * 40, 2 * 40 + 1, 161])
def test_an_outcome_is_read_off_a_crop(outcome):
    place, flip = divmod(outcome, 2)
    row, column = divmod(place, data_path.PLACES)
    padded = nn.functional.pad(data_path.marked(1).float(), (data_path.PADDING,) * 4)
    crop = padded[:, :, row : row + 32, column : column + 32]
    crop = crop.flip(-1) if flip else crop
    assert data_path.outcomes(crop).tolist() == [outcome]
    crop = crop.clone()
    crop[0, 2, 31, 0] += 1
    with pytest.raises(ValueError, match="not the window"):
        data_path.outcomes(crop)


def test_uneven_draws_show():
    source = torch.Generator().manual_seed(0)
    even = torch.randint(0, data_path.OUTCOMES, (20_000,), generator=source)
    assert abs(data_path.unevenness(even)) < data_path.ODD
    never = torch.where(even == 7, 8, even)
    assert data_path.unevenness(never) > data_path.ODD
    assert data_path._kinds_in_a_batch(torch.arange(4).repeat_interleave(128)) == 1


# ---- growth -----------------------------------------------------------------------------------------------------


def curve(power: float, first: int = 1000) -> list[dict[str, float]]:
    return [
        {"at": first * 10**step, "added_ms": (10.0**step) ** power, "low": 0.1, "high": 10.0**step * 2, "rounds": 3}
        for step in range(3)
    ]


def test_the_laws_of_growth():
    assert growth.exponent(curve(0.7)) == pytest.approx(0.7)
    assert growth.last_to_first(curve(0.5)) == pytest.approx(10)
    lost = [{"at": 1, "added_ms": -0.1}, {"at": 2, "added_ms": 1.0}]
    assert growth.exponent(lost) is None and growth.last_to_first(lost) is None
    assert growth._exponent_row({"here": lost, "diffq": []}, False).met is False


def test_networks_of_growth_have_whole_groups():
    for points in growth.FULL.points().values():
        for point in points:
            entries = point.weights // point.tensors // growth.WHOLE * growth.WHOLE
            assert entries * point.tensors > 0.99 * point.weights
    assert sum(p.numel() for p in growth.SumOfWeights(growth.Point(6400, 10, 8)).parameters()) == 6400
