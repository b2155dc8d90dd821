"""The seconds of a run, over its processes."""

from diffq_exp.training import clock
from diffq_exp.training.clock import Clock


def test_the_seconds_of_all_processes(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    assert Clock().seconds == 0
    whole = Clock(10.0)
    now[0] += 2
    assert whole.seconds == 12
    for before, seconds in (
        (30.0, 32),
        (20.0, 32),
        (float("nan"), 32),
    ):
        whole.reached(before)
        assert whole.seconds == seconds
