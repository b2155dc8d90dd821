"""Every test starts from seed 0; the helpers beside this file can be imported in any import mode."""

import sys
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["torch", "together", "alone"])
def each_way(request, monkeypatch):
    """Noise by torch, and as weights in a CPU's memory get it: small ones in one pass, large ones alone."""
    if request.param == "torch":
        monkeypatch.setattr("diffq_exp.quant.diffq.in_cpu_memory", lambda _: False)
    monkeypatch.setattr("diffq_exp.quant.bucket.ALONE", 1 if request.param == "alone" else 2**62)
