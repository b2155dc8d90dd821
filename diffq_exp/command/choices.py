"""Which YAML file a node comes from, and whether its target still is that of the file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .schema import conf_dir


def label(cfg: DictConfig, group: str, choice: str) -> str:
    """The chosen YAML's name; where its target was replaced, the name of that."""
    return str(cfg[group]._target_).rpartition(".")[2] if is_replaced(cfg, group, choice) else choice


def is_replaced(cfg: DictConfig, group: str, choice: str, typed: Collection[str] = ()) -> bool:
    """Whether a node has another target than its YAML file says; `typed` keys decide for a file of the user's."""
    if _file(group, choice).is_file():
        return not is_shipped(group, choice, cfg[group].get("_target_"))
    return f"{group}._target_" in typed


def is_shipped(group: str, choice: str, target: str | None) -> bool:
    """Whether a target is that of a YAML file in conf/."""
    return _file(group, choice).is_file() and shipped(group, choice).get("_target_") == target


@cache
def shipped(group: str, choice: str) -> Mapping[str, Any]:
    """A YAML file in conf/, as it is written."""
    values: Any = OmegaConf.to_container(OmegaConf.load(_file(group, choice)))
    return values or {}


def _file(group: str, choice: str) -> Path:
    return conf_dir() / group / f"{choice}.yaml"
