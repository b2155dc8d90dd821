"""How many jobs run at a time: as it was asked for, one on each GPU, or as many as the cores have room for."""

import os

import pytest

from diffq_exp.sweeps import cores
from diffq_exp.sweeps.cores import gpus, jobs_at_once


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Stands in for the driver's tool: tell(lines, exit code)."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def tell(lines, code=0):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n")
        tool.chmod(0o755)

    return tell


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_gpu_that_the_driver_lists(nvidia_smi, device):
    nvidia_smi(["GPU 0: One (UUID: GPU-a)", "  MIG 1g", "GPU 1: Another (UUID: GPU-b)"])
    assert gpus(device) == ["0", "1"] and jobs_at_once(None, device, threads=1) == 2


@pytest.mark.parametrize(("lines", "code"), [([], 0), (["GPU 0: One"], 9), (["No devices were found"], 0)])
def test_no_gpu(nvidia_smi, lines, code):
    nvidia_smi(lines, code)
    assert gpus("auto") == []


@pytest.mark.parametrize(
    ("visible", "found"), [("2,0", ["2", "0"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("-1", [])]
)
def test_cuda_visible_devices_decides_over_the_driver(nvidia_smi, monkeypatch, visible, found):
    nvidia_smi(["GPU 0: One", "GPU 1: Another", "GPU 2: Third"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus("auto") == found


def test_a_machine_without_the_tool_and_jobs_of_the_cpu_have_no_gpu(nvidia_smi, monkeypatch, tmp_path):
    nvidia_smi(["GPU 0: One"])
    assert gpus("cpu") == gpus("mps") == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert gpus("auto") == []


@pytest.mark.parametrize(
    ("wanted", "threads", "count"), [(3, None, 3), (None, 1, 8), (None, 3, 2), (None, None, 2), (None, 64, 1)]
)
def test_jobs_by_the_cores(monkeypatch, wanted, threads, count):
    monkeypatch.setattr(cores, "cores", lambda: 8)
    assert jobs_at_once(wanted, "cpu", threads) == count
