"""The function that Hydra calls with the configuration of a run, in the process that does the run.

It stands apart from run.py because a sweep hands it to other processes by name, and needs no torch for that itself.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import DictConfig

from ..command.request import Request
from ..parallel.place import place_of, ranks_error
from ..results.records import read_record
from .startup import uncollected

if TYPE_CHECKING:
    from .run import IfBusy

REQUEUE_SECONDS = 60
log = logging.getLogger("diffq_exp")


class JobScore(float):
    """What a job returns: for a sweeper of Hydra's its validation headline, or nan; `code`: its exit code."""

    code: int

    def __new__(cls, score: float, code: int) -> JobScore:
        made = super().__new__(cls, score)
        made.code = code
        return made

    def __reduce__(self) -> tuple[object, ...]:
        return JobScore, (float(self), self.code)

    @classmethod
    def of(cls, folder: Path, code: int) -> JobScore:
        """That of the run in a folder, which ended with this exit code."""
        record = read_record(folder) if code == 0 else None
        score = None if record is None else record.number("val", record.compared_by.name)
        return cls(math.nan if score is None else score, code)


class RunJob:
    """Does a run; `codes` are the exit codes of the runs that ended in, or were reported to, this process."""

    def __init__(self) -> None:
        self.codes: list[int] = []

    def __call__(self, cfg: DictConfig, background: bool = False) -> JobScore:
        """Ends the process, and so the sweep, where a signal stopped the run.

        background: print nothing, and raise FolderBusy where another process is at work on the run. In the
        foreground the job of a sweep waits for that process, and a run of its own is refused.
        """
        place = place_of()
        if place.world > 1:  # a rank that dies is told of in one line of ours
            os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
        with uncollected("torch"):
            from ..common.terminal import log_to_console, log_to_file_only
            from ..training.stopping import hand_on
            from .run import run

        (log_to_file_only if background or place.rank else log_to_console)()
        if place.rank:
            log.addHandler(logging.NullHandler())  # else Python prints warnings and errors by itself
        hydra = cast(DictConfig, HydraConfig.get())
        request = Request(
            choices={group: name for group, name in hydra.runtime.choices.items() if name is not None},
            overrides=list(hydra.overrides.task),
            hydra=hydra,
        )
        in_sweep = hydra.mode == RunMode.MULTIRUN
        if_busy: IfBusy = "raise" if background else "wait" if in_sweep else "refuse"
        folder = _relative(Path(hydra.runtime.output_dir))
        code = run(cfg, folder, request, if_busy) if place.world == 1 else _as_rank(cfg, folder, request, if_busy)
        if code > 128:
            hand_on(code)
            _await_requeue(place.rank)
            sys.exit(code)
        self.codes.append(code)
        return JobScore.of(folder, code)


def _as_rank(cfg: DictConfig, folder: Path, request: Request, if_busy: IfBusy) -> int:
    """Do a run together with the other ranks; -> exit code."""
    from ..parallel.group import Group
    from .run import FAILED, MISTAKE, run

    place = place_of()
    try:
        ranks = Group(place, cfg.device, ranks_error(cfg, place.world))
    except ValueError as error:
        log.error(str(error))
        return MISTAKE
    except RuntimeError as error:
        log.error(f"rank {place.rank}: the ranks do not find each other: {' '.join(str(error).split())}")
        return FAILED
    try:
        return run(cfg, folder, request, if_busy, ranks)
    finally:
        ranks.leave()


def _await_requeue(rank: int) -> None:
    """Leave time to the first rank, which has the job queued again: a rank that ends earlier could end the job."""
    if rank > 0 and "SLURM_JOB_ID" in os.environ:
        time.sleep(REQUEUE_SECONDS)


def _relative(folder: Path) -> Path:
    """The folder as it is shown, and as the user may give it to another run."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def exit_codes(returned: object) -> list[int]:
    """The exit codes in what a sweeper returned: JobReturns, in lists of lists or not at all.

    A job that came to none, as its process died, counts as failed, and why is told on standard error.
    """
    if isinstance(returned, JobReturn):
        if returned.status == JobStatus.COMPLETED:
            return [returned.return_value.code]
        error = returned._return_value
        print(f"error: {' '.join(returned.overrides or [])}: {type(error).__name__}: {error}", file=sys.stderr)
        return [1]
    if isinstance(returned, Iterable) and not isinstance(returned, (str, bytes)):
        return [code for item in returned for code in exit_codes(item)]
    return []
