"""How a trainer trains, and who listens to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Listener(Protocol):
    """Whoever wants to know how a run goes on."""

    def started(self, run_id: str, rows: list[dict[str, Any]]) -> None: ...
    def step(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None: ...
    def epoch(self, row: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How to train."""

    epochs: int
    accumulate: int = 1
    clip: float | None = None
    precision: str = "float32"
    compile: bool = False
    checkpoint_minutes: float = 10.0

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which a forward computes in `precision`."""
        dtype = AUTOCAST[self.precision]
        return torch.autocast(device.type, dtype, enabled=dtype is not None)
