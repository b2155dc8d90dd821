"""The state of a trainer, into a checkpoint and out of it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..results.metrics import read_rows, rows_of_text, text_of_rows, write_rows
from ..results.run_files import CHECKPOINT, METRICS
from .checkpoint import load_checkpoint, restoring, rng_state, set_rng_state

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger("diffq_exp")


def state_of(trainer: Trainer) -> dict[str, Any]:
    """Everything that `resume` needs: the parts that checkpoint.py names."""
    return {
        "run_id": trainer.run_id,
        "place": [trainer.epoch, trainer.batch, trainer.seconds],
        "sums": [trainer.sums.count, trainer.sums.totals],
        "model": trainer.model.state_dict(),
        "optimizers": trainer.optimizers.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "rng": rng_state(),
        "averages": trainer.averages.state_dict() if trainer.averages is not None else None,
        "penalty": trainer.penalty.state_dict() if trainer.penalty is not None else {},
        "metrics": text_of_rows(trainer.rows),
    }


def resume(trainer: Trainer) -> None:
    """Go on from the folder's checkpoint, if there is one.

    metrics.jsonl gets the rows that the checkpoint has: later epochs will be computed, and written, again.
    Raises: ValueError naming a checkpoint that cannot be read or does not fit.
    """
    path = trainer.folder / CHECKPOINT
    state = load_checkpoint(path)
    if state is not None:
        with restoring(path):
            _restore(trainer, state)
            trainer.rows = _rows_of(trainer, state)
    elif trainer.penalty is not None and trainer.quantizer is not None:
        trainer.penalty.begin(trainer.quantizer)
    write_rows(trainer.folder / METRICS, trainer.rows)


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    trainer.run_id = state["run_id"]
    _set_place(trainer, *state["place"])
    count, totals = state["sums"]
    trainer.sums.count = int(count)
    trainer.sums.totals = {name: total.to(trainer.device).reshape(()) for name, total in totals.items()}
    trainer.model.load_state_dict(state["model"])
    trainer.optimizers.load_state_dict(state["optimizers"])
    trainer.scaler.load_state_dict(state["scaler"])
    set_rng_state(state["rng"])
    if trainer.averages is not None:
        trainer.averages.load_state_dict(state["averages"])
    if trainer.penalty is not None and trainer.quantizer is not None:
        trainer.penalty.load_state_dict(state.get("penalty", {}), trainer.quantizer)


def _set_place(trainer: Trainer, epoch: int, batch: int, seconds: float) -> None:
    epochs, batches = trainer.settings.epochs, len(trainer.data.train)
    if not (0 <= epoch <= epochs and 0 <= batch < batches):
        raise ValueError(f"epoch {epoch}, batch {batch}; there are {epochs} and {batches}")
    trainer.epoch, trainer.batch, trainer.seconds = int(epoch), int(batch), float(seconds)


def _rows_of(trainer: Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of metrics in a checkpoint, or where it is an older one, in their file."""
    if "metrics" in state:
        return rows_of_text(state["metrics"])
    rows = read_rows(trainer.folder / METRICS)[: trainer.epoch]
    if len(rows) < trainer.epoch:
        log.warning(f"{trainer.folder / METRICS} has rows of {len(rows)} epochs, {trainer.epoch} were trained")
    return rows
