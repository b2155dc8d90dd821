"""A sweep: a list of jobs, of which those that are missing are launched; its record, its end and its report.

A job is done when its folder holds a finished run of its signature, whichever sweep or command made it. What a
sweep comes to is read from the folders, so that it is the same with every launcher, and after every kind of death.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from .compose import Job
from .cores import jobs_at_once
from .display import log_to_console
from .folder import MODEL
from .results.records import RESULT, read_json, status_of, write_json
from .results.runs import SWEEPS, find_runs
from .sweep_display import duration

log = logging.getLogger("diffq_exp")
DONE = ("finished", "diverged")  # to do it again would give the same


@dataclass(frozen=True)
class Sweep:
    """The jobs of one command, each signature once."""

    name: str
    command: str
    by: list[str]
    outputs: Path
    jobs: list[Job]

    @classmethod
    def of(cls, jobs: Sequence[Job], words: Sequence[str], by: Sequence[str], outputs: Path) -> Sweep:
        """The same jobs have the same name, in whatever order and by whatever words they are asked for."""
        once = list({job.signature: job for job in jobs}.values())
        experiment = [word.partition("=")[2] for word in words if word.startswith("experiment=")]
        digits = hashlib.sha256(" ".join(sorted(job.signature for job in once)).encode()).hexdigest()[:8]
        command = shlex.join(["python", "-m", "diffq_exp.train", "-m", *words])
        return cls("-".join([*(experiment or ["sweep"]), digits]), command, list(by), outputs, once)

    def record(self) -> None:
        """Leave what the sweep consists of where the report finds it."""
        jobs = [
            {
                "folder": os.path.relpath(job.folder, self.outputs),
                "signature": job.signature,
                "overrides": job.words,
            }
            for job in self.jobs
        ]
        (self.outputs / SWEEPS).mkdir(parents=True, exist_ok=True)
        values = {"name": self.name, "command": self.command, "by": self.by, "jobs": jobs}
        write_json(self.outputs / SWEEPS / f"{self.name}.json", values)


def status(job: Job) -> str:
    """The status of a job's run: "missing" where there is none, or another's, or where its network is gone."""
    try:
        if read_json(job.folder / RESULT).get("signature", job.signature) != job.signature:
            return "missing"
        found = status_of(job.folder) or "missing"
    except (ValueError, OSError):
        return "unreadable"
    return "missing" if found == "finished" and not (job.folder / MODEL).is_file() else found


def carry_out(sweep: Sweep, launcher: Any) -> int:
    """Launch what is missing, then report; -> exit code: 0 all finished, 1 some did not, 128+n a signal."""
    log_to_console()
    sweep.record()
    os.environ.setdefault("WANDB_RUN_GROUP", sweep.name)
    os.environ.setdefault("WANDB_TAGS", sweep.name.rpartition("-")[0])
    todo = [job for job in sweep.jobs if job.cfg.restart or status(job) not in DONE]
    log.info(f"sweep {sweep.name}: {len(sweep.jobs)} jobs, {len(sweep.jobs) - len(todo)} done already")
    started, code = time.monotonic(), 0
    if todo:
        try:
            launcher.launch([list(job.words) for job in todo], initial_job_idx=0)
        except SystemExit as stop:  # by a signal, of whose run or launcher it comes
            code = stop.code if isinstance(stop.code, int) else 1
        except Exception as fault:  # of a cluster, say: what became of the runs stands in their folders
            log.error(f"the launcher gave up: {' '.join(str(fault).split())}")
            log.debug("where:", exc_info=fault)
            code = 1
    _report(sweep)
    return _conclude(sweep, time.monotonic() - started, code)


def _report(sweep: Sweep) -> None:
    from .report import report_sweep

    report_sweep(sweep.outputs, sweep.name)


def _conclude(sweep: Sweep, seconds: float, code: int) -> int:
    """The last lines: how many finished, and which did not."""
    statuses = {job.signature: status(job) for job in sweep.jobs}
    counts = Counter(statuses.values())
    told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    log.info(f"sweep {sweep.name}: {told}; {duration(seconds)}")
    for job in sweep.jobs:
        ended = statuses[job.signature]
        if ended != "finished" and not (code and ended in ("missing", "interrupted")):
            log.error(f"{ended}: {' '.join(job.words)} ({job.folder}): {_reason(job.folder)}")
    if code:
        log.warning("stopped; the same command goes on with what is missing")
        return code
    return 0 if counts["finished"] == len(sweep.jobs) else 1


def _reason(folder: Path) -> str:
    try:
        return str(read_json(folder / RESULT).get("reason", "no reason is recorded; its line above may say more"))
    except (ValueError, OSError) as fault:
        return str(fault)


# ---- before it runs ---------------------------------------------------------------------------------------------


def show_plan(jobs: Sequence[Job]) -> None:
    """What dry_run=true tells: the jobs, which are done already, and the time to expect."""
    log_to_console()
    once = list({job.signature: job for job in jobs}.values())
    statuses = [status(job) for job in once]
    for number, (job, found) in enumerate(zip(once, statuses, strict=True), start=1):
        words = " ".join(word for word in job.words if not word.startswith(("dry_run=", "hydra.")))
        log.info(f"{number:>4}  {'to do' if found == 'missing' else found:<11}  {job.folder.name}  {words}")
    todo = [job for job, found in zip(once, statuses, strict=True) if job.cfg.restart or found not in DONE]
    log.info(f"{len(once)} runs: {len(once) - len(todo)} done already, {len(todo)} to do")
    if todo:
        roots = [folder for folder in {job.folder.parent for job in once} if folder.is_dir()]
        runs = [run.result for run in find_runs(roots) if run.status == "finished"]
        log.info(expected_time(todo, runs))


def expected_time(jobs: Sequence[Job], results: Sequence[dict[str, Any]]) -> str:
    """A sentence on how long the jobs will take, by the finished runs of the same data, network and epochs."""
    known: dict[tuple[Any, ...], list[float]] = {}
    for result in results:
        choices = result["choices"]
        key = (choices["dataset"], choices["model"], result["config"].get("epochs"))
        known.setdefault(key, []).append(result["seconds"])
    chosen = [(job.cfg, job.cfg.hydra.runtime.choices) for job in jobs]
    keys = [(choices.dataset, choices.model, cfg.epochs) for cfg, choices in chosen]
    seconds = [median(known[key]) for key in keys if key in known]
    if len(seconds) < len(keys):
        return f"time to expect: unknown; {len(keys) - len(seconds)} have no finished run of their kind to go by"
    cfg = jobs[0].cfg
    n_jobs = min(len(jobs), jobs_at_once(cfg.hydra.launcher.get("n_jobs"), cfg.device, cfg.threads))
    return f"time to expect: {duration(sum(seconds) / n_jobs)}, {n_jobs} at a time"
