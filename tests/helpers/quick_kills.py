"""scripts/kill_points.py with runs that write what a run writes, but train, measure and compose nothing.

A kill then takes some hundredths of a second. Arguments: those of the script; `--operations` lists those of a run.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import kill_points
import torch
from killed_runs import Words
from omegaconf import DictConfig, OmegaConf

from diffq_exp import storage
from diffq_exp.command.request import Request
from diffq_exp.results.intact import file_checksum
from diffq_exp.results.metrics import append_row, rows_of_text, text_of_rows, write_rows
from diffq_exp.results.records import RunRecord
from diffq_exp.results.run_files import CHECKPOINT, METRICS, MODEL
from diffq_exp.runs import run as run_module
from diffq_exp.runs.file_target import TargetTooSmall
from diffq_exp.runs.session import Session
from diffq_exp.training.checkpoint import load_checkpoint, rng_state, save_checkpoint

EPOCHS = 2


class QuickSession(Session):
    """Leaves the files of a session, in the same order; what is in them follows from the number of the epoch."""

    def run(self) -> RunRecord:
        self.folder.write_record(self.record)  # with the data
        if self.cfg.target_mb is not None:
            raise TargetTooSmall("too small")
        state = load_checkpoint(self.folder.path / CHECKPOINT) or {"place": [0], "metrics": ""}
        rows = rows_of_text(state["metrics"])
        write_rows(self.folder.path / METRICS, rows)
        epochs = 0 if OmegaConf.select(self.cfg, "quantizer.training.after") else EPOCHS
        for epoch in range(state["place"][0], epochs):
            rows.append({"epoch": epoch + 1, "loss": 0.5**epoch})
            append_row(self.folder.path / METRICS, rows[-1])
            self.save(epoch + 1, rows)
        network = torch.nn.Linear(3, 2)
        torch.nn.init.constant_(network.weight, float(len(rows)))
        torch.nn.init.zeros_(network.bias)
        storage.save(network, self.folder.path / MODEL, coding="packed")
        checksum = file_checksum(self.folder.path / MODEL)
        return replace(self.record, status="finished", epochs=epochs, checksum=checksum)

    def save(self, epoch: int, rows: list[dict[str, Any]]) -> None:
        state = {"run_id": "a", "place": [epoch, 0, 0.0], "sums": [0, {}], "model": {}, "optimizers": []}
        state |= {"scaler": {}, "rng": rng_state(), "metrics": text_of_rows(rows)}
        save_checkpoint(self.folder.path / CHECKPOINT, state)

    def close(self, record: RunRecord, code: int) -> None:
        pass


def config(words: Words) -> DictConfig:
    after = {"training": {"after": True}} if "quantizer=ptq" in words else {}
    small = any(word.startswith("target_mb") for word in words)
    return OmegaConf.create(
        {
            "restart": "restart=true" in words, "device": "cpu", "seed": 0, "threads": 1, "init_from": None,
            "teacher": None, "quantizer": after, "target_mb": 0.001 if small else None,
        }
    )  # fmt: skip


def name_of(cfg: DictConfig, choices: Any = None) -> str:
    return "quick-bbbb" if cfg.quantizer else "quick-aaaa"


def record_of(cfg: DictConfig, *rest: Any) -> RunRecord:
    return RunRecord(signature=name_of(cfg)[-4:], choices={"quantizer": "none"})


def quick_run(words: Words) -> int:
    from diffq_exp.common.terminal import log_to_console

    log_to_console()
    cfg = config(words)
    (outputs := Path("outputs")).joinpath(name_of(cfg)).mkdir(parents=True, exist_ok=True)  # as Hydra does
    return run_module.run(cfg, outputs / name_of(cfg), Request({}, list(words), {"run": 1}))


def stand_in() -> None:
    """In place of what takes time."""
    module: Any = run_module
    module.Session, module.record_of, module.run_name = QuickSession, record_of, name_of
    module.float32_config = lambda cfg: config(())
    module.float32_overrides = lambda cfg, overrides: []
    module.drop_foreign_keys = lambda *given: []
    module.describe_machine = lambda *given: {"git_commit": "0" * 40}
    module.show_result = lambda *given: None


def main(argv: list[str]) -> int:
    stand_in()
    return kill_points.main(argv, quick_run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
