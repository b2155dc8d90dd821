"""Every test starts from seed 0, and where kernels run is a fixture."""

import inspect
from importlib import import_module

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# Without a GPU its kernels are slow. Tests of kernels/ that name both devices run them always.
CUDA = pytest.param("cuda", marks=[] if torch.cuda.is_available() else [pytest.mark.long])


@pytest.fixture(params=["cpu", CUDA])
def device(request, monkeypatch):
    """Where kernels run. Without a GPU, its kernels run on a CPU, by Triton's interpreter."""
    return kernels_on(request.param, monkeypatch)


@pytest.fixture(params=["torch", "cpu", CUDA])
def each_way(request, monkeypatch):
    """Noise and sizes by torch, and by the kernels of either kind; -> where tensors are to be for that."""
    taken = "each_way" in inspect.signature(request.function).parameters
    if request.param == "cuda" and torch.cuda.is_available() and not taken:
        pytest.skip("its tensors stay on the CPU")
    if request.param != "torch":
        return kernels_on(request.param, monkeypatch)
    for module in ("diffq", "formula"):
        monkeypatch.setattr(f"diffq_exp.quant.{module}.by_kernels", lambda _: False)
    return torch.device("cpu")


def kernels_on(kind, monkeypatch):
    if kind == "cuda" and not torch.cuda.is_available():
        pytest.importorskip("triton", reason="this torch has no Triton")
        cuda = import_module("diffq_exp.quant.kernels.cuda")
        monkeypatch.setattr("diffq_exp.quant.kernels.autograd.backend", lambda _: cuda)
        return torch.device("cpu")
    return torch.device(kind)
