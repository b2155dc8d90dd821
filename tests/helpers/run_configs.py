"""Compose a config and do the run in this process, as `python -m diffq_exp.train` does in one of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from diffq_exp.command.schema import conf_dir, register
from diffq_exp.command.signature import register_resolver
from diffq_exp.runs.run import run

# 48 train, 16 validation and 16 test images of 8 x 8: a run of 0.2 s
TINY = (
    "dataset=synthetic", "dataset.num_classes=4", "dataset.channels=1", "dataset.image_size=8",
    "dataset.train_images=64", "dataset.test_images=16", "val_fraction=0.25", "batch_size=16", "epochs=2",
    "device=cpu", "threads=1", "tracking=none",
)  # fmt: skip
TIMES = ("seconds", "examples_per_second")


@dataclass
class Asked:
    """What Hydra makes of a command line."""

    cfg: DictConfig
    choices: dict[str, str]
    folder: Path
    asked: dict[str, Any]


@dataclass
class Outcome:
    """What a run gave: exit code, folder, and the lines that it told."""

    code: int
    folder: Path
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())

    @property
    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.folder)


def ask(*overrides: str, root: Path | str = ".") -> Asked:
    """Compose; the folder is where Hydra would put the run if it were started in `root`."""
    cfg = _composed(overrides).copy()
    choices = {key: value for key, value in cfg.hydra.runtime.choices.items() if value is not None}
    folder = Path(root) / cfg.hydra.run.dir
    asked = {
        "hydra": OmegaConf.create({"hydra": cfg.hydra}),
        "overrides": OmegaConf.create(list(cfg.hydra.overrides.task)),
    }
    with open_dict(cfg):
        del cfg["hydra"]
    return Asked(cfg, choices, folder, asked)


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Kept, since composing takes as long as a tiny run."""
    register()
    register_resolver()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def do(*overrides: str, root: Path) -> Outcome:
    """Do the run of a command line started in `root`, with what it says collected instead of shown."""
    asked = ask(*overrides, root=root)
    threads = torch.get_num_threads()
    try:
        with listening() as lines:
            code = run(asked.cfg, asked.folder, asked.choices, asked.asked)
    finally:
        torch.set_num_threads(threads)
    return Outcome(code, asked.folder, lines)


@contextmanager
def listening() -> Iterator[list[str]]:
    """The lines that a user would see; the log is set up as for the terminal, and put back."""
    log = logging.getLogger("diffq_exp")
    before = log.level, log.propagate, list(log.handlers)
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG)
    log.propagate = False
    try:
        yield lines
    finally:
        log.level, log.propagate, log.handlers[:] = before
        log.setLevel(before[0])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of metrics without what no two runs share."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
