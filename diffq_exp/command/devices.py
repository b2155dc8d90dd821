"""Whether this machine has the device that a configuration asks for. Imports torch only for cuda and mps."""

from __future__ import annotations


def device_error(name: str) -> str | None:
    """What is wrong with computing on `name` on this machine, None if nothing."""
    if name not in ("cuda", "mps"):
        return None
    import torch

    there = torch.cuda.is_available() if name == "cuda" else torch.backends.mps.is_available()
    return None if there else f"device={name}: this machine has none; auto takes the best that it has"
