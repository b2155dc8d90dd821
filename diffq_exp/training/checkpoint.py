"""Checkpoints: everything that has state, so that a resumed run ends with the bits of a run that never stopped.

Order of data, augmentation and schedules are functions of (seed, epoch, batch), so the state is: weights and
buffers, optimizers, scaler, random generators, the place in the run, the seconds that it took, and the text of
metrics.jsonl before it.
Tensors and plain values only; nothing is unpickled on the way back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import numpy as np
import torch

from ..common.files import replacing

PARTS: dict[str, type] = {
    "run_id": str, "place": list, "sums": list, "model": dict, "optimizers": list, "scaler": dict, "rng": dict,
}  # fmt: skip
LATER_PARTS: dict[str, type | tuple[type, ...]] = {  # which older checkpoints lack
    "averages": (dict, type(None)), "penalty": dict, "metrics": str, "seconds": float,
}  # fmt: skip


CPU = torch.device("cpu")


def rng_state(device: torch.device = CPU) -> dict[str, object]:
    """The state of every random generator, as tensors and plain values; of GPUs, that of the one in use."""
    kind, keys, *rest = cast(tuple[str, np.ndarray, int, int, float], np.random.get_state(legacy=True))
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state(device)] if device.type == "cuda" else [],
        "mps": torch.mps.get_rng_state() if device.type == "mps" else None,
        "numpy": [str(kind), torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def set_rng_state(state: dict[str, Any], device: torch.device = CPU) -> None:
    """Undo `rng_state`; on a device of another kind its own generator goes on as it is."""
    torch.set_rng_state(state["torch"])
    if (states := state["cuda"]) and device.type == "cuda":  # in older checkpoints those of all GPUs
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_rng_state(states[min(index, len(states) - 1)], device)
    if state["mps"] is not None and device.type == "mps":
        torch.mps.set_rng_state(state["mps"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write beside, then rename: a kill or a full disk leaves the old checkpoint whole.

    Raises: OSError with the path and the system's reason.
    """
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (RuntimeError, OSError) as error:
        cause = _of_the_system(error) or error
        reason = (str(getattr(cause, "strerror", None) or cause).splitlines() or ["for no known reason"])[0]
        raise OSError(f"{path}: cannot be written ({reason})") from error


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The OSError that an error goes back to: torch has one of its own for whatever a write raises."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state, on the CPU; None where there is no file.

    Raises: ValueError naming a file that holds no checkpoint; OSError where the system cannot read it.
    """
    if not path.exists():
        return None
    with open(path, "rb"):
        pass  # what the system has against it, as it is
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        told = [] if isinstance(error, UnpicklingError) else str(error).splitlines()  # that is about trust in files
        reason = (told or ["it is damaged, or another kind of file"])[0]
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: not a checkpoint of this package")
    if missing := set(PARTS) - set(state):
        raise ValueError(f"{path}: a checkpoint that lacks {', '.join(sorted(missing))}")
    for name, kind in {**PARTS, **LATER_PARTS}.items():
        if name in state and not isinstance(state[name], kind):
            raise ValueError(f"{path}: a damaged checkpoint: {name} is a {type(state[name]).__name__}")
    for name, value in state["model"].items():  # what get_extra_state of a module gives may be anything
        if not isinstance(value, torch.Tensor) and name.rpartition(".")[2] != "_extra_state":
            raise ValueError(f"{path}: a damaged checkpoint: model.{name} is a {type(value).__name__}")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Where a checkpoint is read, and goes into objects. Raises: ValueError in a line for whatever does not fit."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        of_reading = isinstance(error, ValueError) and str(error).startswith(f"{path}: ")
        told = str(error) if of_reading else f"{path}: a checkpoint that does not fit this run ({reason})"
        raise ValueError(f"{told}; without this file, training begins anew") from error
