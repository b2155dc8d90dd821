"""The state of a trainer, into a checkpoint and out of it.

Ranks have the same weights, and noise and sums of their own: `ranks` has those of each. With another number of
ranks a run goes on too, with other noise.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.order import derive_seed
from ..results.metrics import read_rows, rows_of_text, text_of_rows, write_rows
from ..results.run_files import CHECKPOINT, METRICS
from .checkpoint import load_checkpoint, restoring, rng_state, save_checkpoint, set_rng_state

if TYPE_CHECKING:
    from .trainer import Trainer

log = logging.getLogger("diffq_exp")


def save(trainer: Trainer) -> None:
    """Write the checkpoint, on the first rank."""
    parts = trainer.ranks.every({"rng": rng_state(trainer.device), "sums": trainer.sums.state_dict()})
    trainer.ranks.told(lambda: save_checkpoint(trainer.folder / CHECKPOINT, state_of(trainer, parts)))


def state_of(trainer: Trainer, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that `resume` needs: the parts that checkpoint.py names. parts: what is each rank's own."""
    state = {
        "run_id": trainer.run_id,
        "place": [trainer.epoch, trainer.batch, trainer.seconds],
        "sums": parts[0]["sums"],
        "model": trainer.model.state_dict(),
        "optimizers": trainer.optimizers.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "rng": parts[0]["rng"],
        "averages": trainer.averages.state_dict() if trainer.averages is not None else None,
        "penalty": trainer.penalty.state_dict() if trainer.penalty is not None else {},
        "metrics": text_of_rows(trainer.rows),
        "seconds": trainer.clock.seconds,
    }
    return state if len(parts) == 1 else {**state, "ranks": parts}


def resume(trainer: Trainer) -> None:
    """Go on from the folder's checkpoint, if there is one.

    metrics.jsonl gets the rows that the checkpoint has: later epochs will be computed, and written, again.
    Raises: ValueError naming a checkpoint that cannot be read or does not fit, or that some ranks do not see.
    """
    path, ranks = trainer.folder / CHECKPOINT, trainer.ranks
    with ranks.agreeing(), restoring(path):
        state = load_checkpoint(path)
        if state is not None:
            _restore(trainer, state)
            trainer.rows = _rows_of(trainer, state)
    if len(set(ranks.every((trainer.epoch, trainer.batch)))) > 1:
        raise ValueError(f"{path}: some ranks do not see it; it has to lie on a disk that all of them share")
    if state is None:
        _begin(trainer)
    ranks.told(lambda: write_rows(trainer.folder / METRICS, trainer.rows))


def _begin(trainer: Trainer) -> None:
    penalty, quantizer = trainer.penalty, trainer.quantizer
    if penalty is not None and quantizer is not None:
        trainer.ranks.told(lambda: penalty.begin(quantizer))
    follow_first(trainer)
    if not trainer.ranks.first:
        _seed_apart(trainer)


def follow_first(trainer: Trainer) -> None:
    """Give all ranks what the first one alone has changed: weights, their averages, the penalty's state."""
    ranks, penalty, quantizer = trainer.ranks, trainer.penalty, trainer.quantizer
    if ranks.world == 1:
        return
    means = trainer.averages.means if trainer.averages is not None else []
    ranks.copy_first([*trainer.model.parameters(), *trainer.model.buffers(), *means])
    if penalty is not None and quantizer is not None:
        penalty.load_state_dict(ranks.told(penalty.state_dict), quantizer)


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    trainer.run_id = state["run_id"]
    _set_place(trainer, *state["place"])
    trainer.clock.reached(state.get("seconds", 0.0))
    trainer.model.load_state_dict(state["model"])
    trainer.optimizers.load_state_dict(state["optimizers"])
    trainer.scaler.load_state_dict(state["scaler"])
    if trainer.averages is not None:
        trainer.averages.load_state_dict(state["averages"])
    if trainer.penalty is not None and trainer.quantizer is not None:
        trainer.penalty.load_state_dict(state.get("penalty", {}), trainer.quantizer)
    _restore_own(trainer, state.get("ranks") or [{"rng": state["rng"], "sums": state["sums"]}])


def _restore_own(trainer: Trainer, parts: list[dict[str, Any]]) -> None:
    """What is this rank's own. Of another number of ranks, the first one takes all sums."""
    rank, world = trainer.ranks.rank, trainer.ranks.world
    if len(parts) != world:
        log.info(f"goes on with {world} ranks instead of {len(parts)}: the noise is another from here on")
    if rank < len(parts):
        set_rng_state(parts[rank]["rng"], trainer.device)
    else:
        _seed_apart(trainer)
    own = parts[rank : rank + 1] if len(parts) == world else parts if rank == 0 else []
    for part in own:
        trainer.sums.take_in(part["sums"], trainer.device)


def _seed_apart(trainer: Trainer) -> None:
    """Generators of this rank's own."""
    seed = derive_seed("rank", torch.initial_seed(), trainer.ranks.rank, trainer.epoch, trainer.batch)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


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
