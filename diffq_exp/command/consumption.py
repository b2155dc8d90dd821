"""Which nodes and plain keys a run depends on, under the quantizer and the sources that are chosen."""

from __future__ import annotations

import json
import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .choices import shipped
from .schema import NODES, PLAIN

CONSUMED_NODES = tuple(name for name in NODES if name != "tracking")
# Added after runs had signatures, with their defaults:
LATER_NODES = {"size": "formula", "penalty_schedule": "constant"}
TRAINER_KEYS = ("seed", "epochs", "batch_size", "accumulate", "clip", "precision", "compile", "threads")
LATER_TRAINER_KEYS = {"sync_batch_norm": False}  # added later too
TARGET_KEYS = ("target_mb", "target_ratio")  # in place of the penalty
FINISH_KEYS = ("average_decay", "batch_norm_batches", "round_penalty", *TARGET_KEYS)  # besides steps
TEACHER_KEYS = ("teacher_weight", "teacher_temperature")  # read where there is a teacher
SOURCE_KEYS = ("init_from", "teacher")  # other networks: runs, files, or FLOAT32
FLOAT32 = "float32"  # the run of the same configuration with quantizer=none; a key says what it has of its own
# No part of a signature as they are typed; sources count by what they hold.
UNSIGNED_KEYS = (
    "device", "parallel", "num_workers", "checkpoint_minutes", "restart", "dry_run", "init_strict", *SOURCE_KEYS,
)  # fmt: skip
TRAINING_ONLY = ("optimizer", "scheduler", "epochs", "accumulate", "clip", "compile", "average_decay")


def consumed_nodes(cfg: DictConfig) -> list[str]:
    """Names of the nodes that a run depends on.

    A node of LATER_NODES counts only where it is not the default: a run has the signature, and the record, that it
    had before there was such a node.
    """
    unused = unused_nodes(cfg) | {
        name for name, choice in LATER_NODES.items() if resolved(cfg[name]) == shipped(name, choice)
    }
    return [name for name in CONSUMED_NODES if name not in unused]


def unused_nodes(cfg: DictConfig) -> set[str]:
    """Nodes without effect under the chosen quantizer."""
    penalty = OmegaConf.select(cfg, "quantizer.training.penalty")
    unused = {"penalty_schedule"} if penalty is None or has_target(cfg) else set()
    return unused | ({"size"} if cfg.quantizer.get("_target_") is None else set())


def unused_keys(cfg: DictConfig) -> set[str]:
    """Plain keys that no node takes up and the trainer does not read, under the chosen nodes."""
    text = json.dumps([OmegaConf.to_container(cfg[name], resolve=False) for name in NODES])
    used = set(re.findall(r"\$\{(\w+)\}", text))
    used |= set(TEACHER_KEYS) if cfg.teacher is not None and not only_afterwards(cfg) else set()
    used |= {FLOAT32} if float32_sources(cfg) else set()
    used -= {"penalty"} if has_target(cfg) else set()
    return set(PLAIN) - used - {*TRAINER_KEYS, *LATER_TRAINER_KEYS, *FINISH_KEYS} - set(UNSIGNED_KEYS)


def has_target(cfg: DictConfig) -> bool:
    """Whether the file has a size to end at."""
    return any(cfg.get(key) is not None for key in TARGET_KEYS)


def only_afterwards(cfg: DictConfig) -> bool:
    """Whether the quantizer is applied to a trained network, without training of its own."""
    return bool(OmegaConf.select(cfg, "quantizer.training.after", default=False))


def trains_nothing(cfg: DictConfig) -> bool:
    """Whether a run only quantizes a network that it is given."""
    return only_afterwards(cfg) and cfg.init_from not in (None, FLOAT32)


def float32_sources(cfg: DictConfig) -> list[str]:
    """The keys whose network is the float32 run of this one."""
    if only_afterwards(cfg):  # nothing follows a teacher
        return ["init_from"] if cfg.init_from in (None, FLOAT32) else []
    return [key for key in SOURCE_KEYS if cfg[key] == FLOAT32]


def resolved(value: object) -> Any:
    """A value of a configuration as Python's own type. Raises: omegaconf errors for what is missing."""
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value
