"""What the process of a job does: what it prints goes to train.log, and it computes on its share of the machine."""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import signal
import sys
from functools import partial
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals


class _Heard(logging.Handler):
    """error: the last one that was logged. untracked: the first sentence of W&B's trouble."""

    error = untracked = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.error = record.getMessage()
        elif record.name.startswith("diffq_exp.tracking") and not self.untracked:
            self.untracked = record.getMessage()


def work(hydra: bytes, folder: Path, threads: int, gpu: str | None, place: dict[str, str]) -> tuple[int, str, str]:
    """-> exit code of the run, the last error that it logged, and why W&B does not track it. Raises: FolderBusy.

    place: the variables that tell ranks of a run which they are, none for a run of one process.
    hydra: pickled, since its resolvers are functions made in functions: (state, context, task function, config).
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the run takes it, where nobody else has
    from diffq_exp.results.run_files import LOG

    _write_to(folder / LOG)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA begins
    os.environ |= place
    import torch

    torch.set_num_threads(threads)
    state, context, task_function, config = pickle.loads(hydra)
    Singleton.set_state(state)
    setup_globals()
    heard = _Heard(logging.WARNING)
    logging.getLogger("diffq_exp").addHandler(heard)
    try:
        returned = run_job(
            hydra_context=context,
            task_function=partial(task_function, background=True),  # type: ignore[call-arg]
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )
    except SystemExit as stop:  # by a signal
        return int(stop.code or 0), heard.error, heard.untracked
    finally:
        sys.stdout.flush()  # as soon as the result is there, the process is ended
    return returned.return_value.code, heard.error, heard.untracked


def _write_to(log: Path) -> None:
    """Send standard output and error to the end of a file: warnings of libraries, and a last word on a crash."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    faulthandler.enable()
