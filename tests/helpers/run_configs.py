"""Compose a config and do the run in this process, as `python -m diffq_exp.train` does in one of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from diffq_exp.command.compose import composer
from diffq_exp.command.request import Request
from diffq_exp.runs.run import run

# 48 train, 16 validation and 16 test images of 8 x 8: a run of 0.2 s, where entropy coding would take a second
TINY = (
    "dataset=synthetic", "dataset.num_classes=4", "dataset.channels=1", "dataset.image_size=8",
    "dataset.train_images=64", "dataset.test_images=16", "val_fraction=0.25", "batch_size=16", "epochs=2",
    "device=cpu", "threads=1", "tracking=none", "storage.coding=packed",
)  # fmt: skip
TIMES = ("seconds", "examples_per_second")


@dataclass
class Composed:
    """A command line, composed."""

    cfg: DictConfig
    folder: Path
    request: Request

    @property
    def choices(self) -> dict[str, str]:
        return self.request.choices


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


def ask(*overrides: str, root: Path | str = ".") -> Composed:
    """Compose; the folder is where Hydra would put the run if it were started in `root`."""
    cfg = composer()(overrides)
    choices = {key: value for key, value in cfg.hydra.runtime.choices.items() if value is not None}
    folder = Path(root) / cfg.hydra.run.dir
    request = Request(choices, list(cfg.hydra.overrides.task), cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return Composed(cfg, folder, request)


def do(*overrides: str, root: Path) -> Outcome:
    """Do the run of a command line started in `root`, with what it says collected instead of shown."""
    command = ask(*overrides, root=root)
    threads = torch.get_num_threads()
    try:
        with listening() as lines:
            code = run(command.cfg, command.folder, command.request)
    finally:
        torch.set_num_threads(threads)
    return Outcome(code, command.folder, lines)


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
