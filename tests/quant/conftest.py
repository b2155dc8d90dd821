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


@pytest.fixture(params=["torch", "kernels"])
def each_way(request, monkeypatch):
    """Noise and sizes by torch, and as weights in a CPU's memory get them."""
    if request.param == "torch":
        for module in ("diffq", "size"):
            monkeypatch.setattr(f"diffq_exp.quant.{module}.in_cpu_memory", lambda _: False)
