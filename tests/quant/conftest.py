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


@pytest.fixture(params=["torch", "numpy"])
def each_way(request, monkeypatch):
    """Noise and extremes by torch, and as numpy finds them for large tensors, whatever the size of the tensors."""
    monkeypatch.setattr("diffq_exp.quant.draw.LARGE", 0 if request.param == "numpy" else 2**62)
