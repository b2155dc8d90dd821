"""The part `ranks` of scripts/benchmark.py: its rows, and a run of it at tiny sizes."""

import pytest
import torch
from benchmarks import ranks
from benchmarks.common import Context

NAMES = [variant.name for variant in ranks.VARIANTS]


def test_rows_say_the_steps_and_what_logits_send():
    alone = {name: [1.0 + at, 1.0 + at] for at, name in enumerate(NAMES)}
    shared = {name: [0.5 + at, 0.5 + at] for at, name in enumerate(NAMES)}
    sent = {name: (4 + at) * ranks.MB for at, name in enumerate(NAMES)}
    rows = ranks._rows(ranks.SETTING, alone, shared, sent)
    assert [row.what for row in rows[:3]] == [
        f"2 ranks of 1 thread, {ranks.SETTING.title}, {name}: a step" for name in NAMES
    ]
    assert "0.500 s" in rows[0].here and "one rank of 2 threads 1.000 s" in rows[0].here
    assert rows[3].here.startswith("1.0 MB beside 4.0; 3.000") and "on one rank 2.000" in rows[3].here
    assert rows[4].here.startswith("2.0 MB beside 4.0; 5.000")


@pytest.mark.long
def test_two_ranks_are_measured_beside_one(capfd):
    part = ranks.ranks(Context(torch.device("cpu"), quick=True, diffq=False))
    assert len(part.rows) == 5 and set(part.data["two ranks"]) == set(NAMES) == set(part.data["one rank"])
