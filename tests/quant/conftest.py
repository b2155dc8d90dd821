"""Every test starts from seed 0; the helpers beside this file can be imported in any import mode."""

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch):
    """Where kernels run. Without a GPU, its kernels run on a CPU, by Triton's interpreter."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.importorskip("triton", reason="this torch has no Triton")
        monkeypatch.setitem(sys.modules, "diffq_exp.quant.cpu", import_module("diffq_exp.quant.cuda"))
        return torch.device("cpu")
    return torch.device(request.param)


@pytest.fixture(params=["torch", "kernels"])
def each_way(request, monkeypatch):
    """Noise and sizes by torch, and as weights in a CPU's memory get them."""
    if request.param == "torch":
        for module in ("diffq", "size"):
            monkeypatch.setattr(f"diffq_exp.quant.{module}.by_kernels", lambda _: False)
