"""How many jobs this machine has room for. Asks no torch: a sweep does not need it."""

from __future__ import annotations

import os
import subprocess

THREADS = 4  # that a job is given room for where `threads` is null


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(device: str) -> list[str]:
    """The GPUs for jobs with this `device`, each as CUDA_VISIBLE_DEVICES names it."""
    if device not in ("auto", "cuda"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    names_of_gpus = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(number) for number in range(len(names_of_gpus))] if listed.returncode == 0 else []


def jobs_at_once(wanted: int | None, device: str, threads: int | None, ranks: int = 1) -> int:
    """`wanted`, else one for each GPU, else as many as the cores have room for; of jobs of so many ranks each."""
    return wanted or max(1, (len(gpus(device)) or cores() // (threads or THREADS)) // ranks)
