"""Where and with what a run was made: stands in its result, never in its signature."""

from __future__ import annotations

import os
import platform
import random
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils import deterministic

from .results.commit import git_state

PACKAGES = ("diffq_exp", "torch", "torchvision", "hydra-core", "wandb", "numpy", "safetensors")


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


def prepare_torch(seed: int, threads: int | None, device: torch.device) -> None:
    """Seed every generator, set the CPU's threads, and ask CUDA for algorithms that repeat themselves."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if threads is not None:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
