"""Whether a run has ended, and what is made again of a finished one that was damaged since."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import storage
from ..results.intact import damage
from ..results.metrics import read_rows, rows_of_text, write_rows
from ..results.records import RunRecord
from ..results.run_files import CHECKPOINT, METRICS, MODEL
from ..training.checkpoint import load_checkpoint

log = logging.getLogger("diffq_exp")


def has_ended(folder: Path, record: RunRecord) -> bool:
    """Whether there is nothing left to do."""
    return record.status == "diverged" or is_whole(folder, record)


def is_whole(folder: Path, record: RunRecord) -> bool:
    """Whether a run is finished, and its stored network is as it was."""
    return record.status == "finished" and _problem(folder, record) is None


def check_can_be_made_again(folder: Path, record: RunRecord, trains: bool) -> None:
    """Say that the stored network of a finished run is made again, from the checkpoint if the run `trains`.

    Raises: ValueError where it is damaged, and cannot be.
    """
    problem = _problem(folder, record)
    try:
        trained = not trains or load_checkpoint(folder / CHECKPOINT) is not None
    except ValueError as error:
        raise ValueError(f"{problem}, and so is what it is made from: {error}; restart=true trains anew") from error
    if not trained and (folder / MODEL).is_file():
        raise ValueError(f"{problem}, and there is no {CHECKPOINT} to make it from; restart=true trains anew")
    log.warning(f"{problem}; it is made again")


def mend_metrics(folder: Path, record: RunRecord) -> None:
    """Give a finished run the rows of its metrics again that were lost, if its checkpoint has them."""
    if len(read_rows(folder / METRICS)) >= (record.epochs or 0):
        return
    try:
        state = load_checkpoint(folder / CHECKPOINT) or {}
    except ValueError:
        return
    if rows := rows_of_text(state.get("metrics", "")):
        log.warning(f"{folder / METRICS} had lost rows; they are made again from {CHECKPOINT}")
        write_rows(folder / METRICS, rows)


def _problem(folder: Path, record: RunRecord) -> str | None:
    """What is wrong with the stored network; by the checksum inside, where the record has none."""
    if (found := damage(folder, record)) or record.checksum is not None:
        return found
    try:
        storage.open_stored(folder / MODEL)
    except ValueError as error:
        return str(error)
    return None
