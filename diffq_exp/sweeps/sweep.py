"""A sweep: a list of jobs, of which those that are missing are launched; its record, its end and its report.

A job is done when its folder holds a finished run of its signature, whichever sweep or command made it. What a
sweep comes to is read from the folders, so that it is the same with every launcher, and after every kind of death.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from ..command.compose import Job
from ..command.overrides import grid_overrides
from ..common.files import write_json
from ..common.terminal import log_to_console
from ..parallel.place import why_not_anew
from ..results.discovery import Run, find_runs
from ..results.intact import damage
from ..results.publish import report_sweep
from ..results.records import read_record, status_of
from ..results.run_files import LOG
from ..results.sweep_records import SWEEPS
from ..tracking.limits import shortened
from .changed_data import tell_if_data_changed
from .cores import jobs_at_once
from .progress import duration

log = logging.getLogger("diffq_exp")
DONE = ("finished", "diverged")  # to do it again would give the same
SIGNAL = 128  # + its number: the exit code of a sweep that a signal stopped
STOPPED = ("missing", "interrupted", "running", "killed")  # by the signal that stopped the sweep


@dataclass(frozen=True)
class Sweep:
    """The jobs of one command, each signature once; `arguments`: what stands after `python -m diffq_exp.train`."""

    arguments: list[str]
    jobs: list[Job]

    @classmethod
    def of(cls, jobs: Sequence[Job], arguments: Sequence[str]) -> Sweep:
        return cls(list(arguments), list({job.signature: job for job in jobs}.values()))

    @property
    def name(self) -> str:
        """The same jobs have the same name, whatever the overrides that ask for them."""
        typed = [text.partition("=")[2] for text in self.arguments if text.startswith("experiment=")]
        label = typed[-1] if typed and re.fullmatch(r"[\w.-]+", typed[-1]) else "sweep"
        signatures = " ".join(sorted(job.signature for job in self.jobs))
        return f"{label}-{hashlib.sha256(signatures.encode()).hexdigest()[:8]}"

    @property
    def outputs(self) -> Path:
        return Path(self.jobs[0].cfg.hydra.sweep.dir)

    @property
    def todo(self) -> list[Job]:
        """The jobs that are left to do, or that restart=true asks for again."""
        return [job for job in self.jobs if job.cfg.restart or status(job) not in DONE]

    def record(self, by: Sequence[str]) -> None:
        """Leave what the sweep consists of, and its methods' keys, where the report finds it. Raises: OSError."""
        command = shlex.join(["python", "-m", "diffq_exp.train", *self.arguments])
        record_jobs(self.outputs, self.name, command, by, self.jobs)


def record_jobs(outputs: Path, name: str, command: str, by: Sequence[str], jobs: Sequence[Job]) -> None:
    """Write the record of a sweep, which `sweep_records.read_sweep` reads.

    by: the keys that tell methods apart; none: those that are swept.
    """
    described = [
        {"folder": os.path.relpath(job.folder, outputs), "signature": job.signature, "overrides": job.overrides}
        for job in jobs
    ]
    (outputs / SWEEPS).mkdir(parents=True, exist_ok=True)
    values = {"name": name, "command": command, "by": [*by], "jobs": described}
    write_json(outputs / SWEEPS / f"{name}.json", values)


def status(job: Job) -> str:
    """The status of a job's run: "missing" where there is none, or another's, or where its file is not whole."""
    try:
        record = read_record(job.folder)
        if record.signature not in ("", job.signature):
            return "missing"
        state = status_of(job.folder, record) or "missing"
        return "missing" if state == "finished" and damage(job.folder, record) else state
    except (ValueError, OSError):
        return "unreadable"


def ended(state: str, failed: bool) -> str:
    """What a job came to, by the status of its run. failed: a restart, whose earlier run may be back."""
    return "failed" if failed and state == "finished" else state


def carry_out(sweep: Sweep, launcher: Launcher, by: Sequence[str] = ()) -> int:
    """Launch what is missing, then report; -> exit code: 0 all finished, 1 some did not, 2 a disk, 128+n a signal.

    by: the keys that tell methods apart in the report; none: those that are swept. launcher: its `reasons`, if it
    has any, say of folders why a run failed that could not say so itself.
    """
    log_to_console()
    try:
        sweep.record(by)
    except OSError as error:
        log.error(f"hydra.sweep.dir={sweep.outputs}: {error}")
        return 2
    os.environ.setdefault("WANDB_RUN_GROUP", shortened(sweep.name, "group"))
    os.environ.setdefault("WANDB_TAGS", shortened(sweep.name.rpartition("-")[0], "tags"))
    todo = sweep.todo
    log.info(f"sweep {sweep.name}: {len(sweep.jobs)} jobs, {len(sweep.jobs) - len(todo)} done already")
    if any(job.cfg.restart for job in todo) and (why := why_not_anew()):
        log.warning(why)
    started, code, failed = time.monotonic(), 0, set[Path]()
    if todo:
        try:
            failed = _failed(todo, launcher.launch(_asked(launcher, todo), initial_job_idx=0))
        except SystemExit as stop:  # by a signal, of whose run or launcher it comes
            code = stop.code if isinstance(stop.code, int) else 1
        except Exception as error:  # of a cluster, say: what became of the runs stands in their folders
            log.error(f"the launcher gave up: {' '.join(str(error).split())}")
            log.debug("where:", exc_info=error)
            code = 1
    else:
        tell_if_data_changed(sweep.jobs)
    if code <= SIGNAL:  # who stops a sweep waits for no picture
        report_sweep(sweep.outputs, sweep.name)
    return _conclude(sweep, time.monotonic() - started, code, getattr(launcher, "reasons", {}), failed)


def _failed(jobs: Sequence[Job], returned: Sequence[JobReturn] | None) -> set[Path]:
    """The folders of jobs whose restart has failed, by what they returned; their earlier run may be back there."""
    pairs = [pair for pair in zip(jobs, returned or [], strict=False) if pair[0].cfg.restart]
    return {job.folder for job, one in pairs if one.status != JobStatus.COMPLETED or _code(one)}


def _code(returned: JobReturn) -> int:
    return getattr(returned.return_value, "code", 0)


def _asked(launcher: Launcher, todo: Sequence[Job]) -> list[list[str]]:
    """The overrides of each job for a launcher. One that composes them anew is told where each run is, too.

    Composed anew, ${now:...}, the number of a job or the id that a cluster gives it may be others.
    """
    if hasattr(launcher, "planned"):  # ours
        launcher.planned = {job.overrides: job for job in todo}
        return [list(job.overrides) for job in todo]
    return [[*job.overrides, *_place(job)] for job in todo]


def _place(job: Job) -> list[str]:
    """Where the job's run is, as overrides."""
    place = job.cfg.hydra.sweep
    return grid_overrides({"hydra.sweep.dir": [str(place.dir)], "hydra.sweep.subdir": [str(place.subdir)]})


def _conclude(
    sweep: Sweep, seconds: float, code: int, reasons: Mapping[Path, str], failed: Collection[Path]
) -> int:
    """The last lines: how many finished, and which did not. failed: folders where restart=true has failed."""
    statuses = {job.signature: ended(status(job), job.folder in failed) for job in sweep.jobs}
    counts = Counter(statuses.values())
    summary = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    log.info(f"sweep {sweep.name}: {summary}; {duration(seconds)}")
    for job in sweep.jobs:
        came_to = statuses[job.signature]
        if came_to != "finished" and not (code > SIGNAL and came_to in STOPPED):
            unsaid = f"see {job.folder / LOG}" if job.folder in failed else "no reason is recorded"
            reason = _reason(job.folder) or reasons.get(job.folder) or unsaid
            log.error(f"{came_to}: {' '.join(job.overrides)} ({job.folder}): {reason}")
    if code > SIGNAL and counts["finished"]:
        log.info(f"python -m diffq_exp.report {sweep.outputs} --sweep {sweep.name} reports what is finished")
    if code:
        log.warning("stopped; the same command goes on with what is missing")
        return code
    return 0 if counts["finished"] == len(sweep.jobs) else 1


def _reason(folder: Path) -> str | None:
    try:
        return read_record(folder).reason
    except (ValueError, OSError) as error:
        return str(error)


# ---- before it runs ---------------------------------------------------------------------------------------------


def show_plan(sweep: Sweep) -> None:
    """What dry_run=true tells: the jobs, which are done already, and the time to expect."""
    log_to_console()
    for number, job in enumerate(sweep.jobs, start=1):
        overrides = " ".join(text for text in job.overrides if not text.startswith("dry_run="))
        state = status(job)
        log.info(f"{number:>4}  {'to do' if state == 'missing' else state:<11}  {job.folder.name}  {overrides}")
    todo = sweep.todo
    log.info(f"{len(sweep.jobs)} runs: {len(sweep.jobs) - len(todo)} done already, {len(todo)} to do")
    if todo:
        roots = [folder for folder in {job.folder.parent for job in sweep.jobs} if folder.is_dir()]
        log.info(expected_time(todo, [run for run in find_runs(roots) if run.status == "finished"]))


def expected_time(jobs: Sequence[Job], runs: Sequence[Run]) -> str:
    """A sentence on how long the jobs will take, by the finished runs of the same data, network and epochs."""
    known: dict[tuple[object, ...], list[float]] = {}
    for run in runs:
        if (taken := run.record.seconds) is not None:
            key = (run.choices.get("dataset"), run.choices.get("model"), run.value("epochs"))
            known.setdefault(key, []).append(taken)
    chosen = [(job.cfg, job.cfg.hydra.runtime.choices) for job in jobs]
    keys = [(choices.dataset, choices.model, cfg.epochs) for cfg, choices in chosen]
    seconds = [median(known[key]) for key in keys if key in known]
    unlike = len(keys) - len(seconds)
    if not seconds:
        return f"time to expect: unknown; {unlike} have no finished run of their kind to go by"
    cfg = jobs[0].cfg
    launcher = cfg.hydra.launcher
    at_once = jobs_at_once(launcher.get("n_jobs"), cfg.device, cfg.threads, launcher.get("gpus_per_job", 1))
    n_jobs = min(len(jobs), at_once)
    rest = f", and that of {unlike} without a finished run of their kind to go by" if unlike else ""
    return f"time to expect: {duration(sum(seconds) / n_jobs)}, {n_jobs} at a time{rest}"
