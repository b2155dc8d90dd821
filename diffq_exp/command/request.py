"""The command line of a run, as its record and its .hydra/ folder say it beside the configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig


@dataclass(frozen=True)
class Request:
    """choices: the chosen YAML file of each group. overrides: as typed. hydra: Hydra's own configuration."""

    choices: dict[str, str]
    overrides: Sequence[str] = ()
    hydra: DictConfig | None = None
