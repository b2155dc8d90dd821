"""The machine and the packages of a run: they stand in its record, never in its signature."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic

from ..results.commit import git_state

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h, in bytes
PACKAGES = ("diffq_exp", "torch", "torchvision", "hydra-core", "wandb", "numpy", "numba", "safetensors")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """{"device", "git_commit", "git_dirty", "versions", "hardware"}."""
    commit, dirty = git_state()
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    hardware = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return {
        "device": str(device),
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": versions,
        "hardware": hardware,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory for the next allocations; -> whether it does.

    Else each large tensor comes from the system page by page and goes back to it, at every step. Not where the
    environment says when memory is to go back, nor without glibc.
    """
    chosen = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys()
    if chosen or re.search(r"(mmap|trim)_threshold", os.environ.get("GLIBC_TUNABLES", "")):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if mallopt is None:
        return False
    threshold = mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # the most in old versions
    return bool(threshold and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def prepare_torch(seed: int, threads: int | None, device: torch.device) -> None:
    """Seed every generator, set the CPU's threads and memory, ask CUDA for algorithms that repeat themselves."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
