"""The file of a run, read back into a fresh network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .. import storage
from ..stored.network import StoredModel, write_into


@torch.no_grad()
def read_back(path: Path, fresh: nn.Module, stored: StoredModel) -> None:
    """Fill a fresh network from the file, and see that it has every bit of what was stored from memory.

    Raises: RuntimeError naming a tensor that differs (an error of ours, or of the disk).
    """
    write_into(fresh, storage.read(path)[0])
    state = fresh.state_dict()
    for name, value in stored.values().items():
        if not torch.equal(_bits(state[name]), _bits(value.to(state[name]))):
            raise RuntimeError(f"{path}: {name!r} read back differs from the network in memory")


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, of which nan equals nan."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
