"""The files in the folder of a run, and the lock that says whether a process works there."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

RESULT = "result.json"
METRICS = "metrics.jsonl"
LOCK = ".lock"
LOG = "train.log"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.pt"
SENSITIVITY = "sensitivity.json"  # of `python -m diffq_exp.evaluate <run> --sensitivity`
EARLIER = ".earlier"  # restart=true moves the files of the earlier run there, until the new run is finished
ASIDE = ".aside"  # on their way there, or back
LEFT_BY_A_RUN = (RESULT, METRICS, MODEL, LOG, CHECKPOINT, SENSITIVITY, ".hydra", "wandb")


def is_locked(folder: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a disk that is only read, or has no locks: no process works there
        return False
    lock.release()
    return False
