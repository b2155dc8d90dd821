"""Runs each job of a sweep in a process of its own, several at a time, and outlives the death of any of them.

Processes are forked from a server that has imported torch once, which saves each of them some seconds; pebble
starts them, brings their results back and reports their deaths. A job that finds another process at work on its
run goes to the end of the queue, until that process lets go of it: so two sweeps side by side share their runs.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from .deadlines import Deadlines
from .processes import cause, context, start_server
from .signals import Signals
from .worker import work

if TYPE_CHECKING:
    from diffq_exp.command.compose import Job

Outcome: TypeAlias = "tuple[int, str, str]"  # of `work`; a text, since Hydra takes it for a class on Python 3.10
LOOK_SECONDS = 0.5  # between two looks at locks
PATIENCE = 30.0  # seconds for the other ranks of a job whose first has ended
log = logging.getLogger("diffq_exp")


class _Waiting(NamedTuple):  # no dataclass: Hydra keeps plugins out of sys.modules, where a dataclass looks
    number: int
    overrides: list[str]
    behind: Path | None = None  # the folder in which another process was at work


class _Running(NamedTuple):
    waiting: _Waiting
    job: Job
    slot: int


class ProcessLauncher(Launcher):
    """n_jobs: at a time; None: one for each GPU, without one as many as the cores have room for.

    timeout_minutes: after which a job's processes are to save and to end; None: never.
    gpus_per_job: processes that share a run, each on a GPU of its own, or on the CPU where that is the device.
    """

    def __init__(
        self, n_jobs: int | None = None, timeout_minutes: float | None = None, gpus_per_job: int = 1
    ) -> None:
        self.n_jobs, self.ranks, self._deadlines = n_jobs, gpus_per_job, Deadlines(timeout_minutes)
        self._others: dict[Future[Outcome], list[Future[Outcome]]] = {}  # the other ranks of a job, by its first
        self.planned: dict[tuple[str, ...], Job] = {}  # jobs that are composed already, by their overrides
        self.reasons: dict[Path, str] = {}  # of folders, why their run failed: for those that could not record it

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config
        self._codes: list[int] = getattr(task_function, "codes", [])  # for sweepers that return nothing

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs. Raises: SystemExit(128+n) after a signal, when the jobs that ran have saved and ended."""
        from diffq_exp.sweeps.cores import cores, gpus, jobs_at_once
        from diffq_exp.sweeps.progress import SweepDisplay

        setup_globals()
        queue = deque(
            _Waiting(number, list(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)
        )
        cfg = self._composed(queue[0]).cfg
        n_jobs = min(len(queue), jobs_at_once(self.n_jobs, cfg.device, cfg.threads, self.ranks))
        self._threads, self._gpus = max(1, cores() // (n_jobs * self.ranks)), gpus(cfg.device)
        self._returns: dict[int, JobReturn] = {}
        self._warned: set[str] = set()
        with Signals() as stop, SweepDisplay(len(job_overrides), n_jobs) as self._display:
            start_server()
            running: dict[Future[Outcome], _Running] = {}
            while running or (queue and stop.signal is None):
                free = sorted(set(range(n_jobs)) - {job.slot for job in running.values()})
                for slot in free if stop.signal is None else []:
                    if (waiting := _first_free(queue)) is not None and (job := self._job(waiting)) is not None:
                        running[self._start(waiting, job, slot)] = _Running(waiting, job, slot)
                if stop.signal is not None:
                    stop.pass_on()
                self._deadlines.look()
                for future in _first_ended(running):
                    ended = running.pop(future)
                    queue.extend(self._end(future, ended.waiting, ended.job, stopping=stop.signal is not None))
        if stop.signal is not None:
            raise SystemExit(128 + stop.signal)
        return [self._returns[number] for number in sorted(self._returns)]

    def _composed(self, waiting: _Waiting) -> Job:
        """The job as it was planned; one that another sweeper asks for is composed now."""
        from diffq_exp.command.compose import job, numbered

        words = tuple(waiting.overrides)
        if words in self.planned:
            return self.planned[words]
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, waiting.overrides)
        return job(words, numbered(cfg, waiting.number, multirun=True))

    def _job(self, waiting: _Waiting) -> Job | None:
        """The job; None where another sweep has done it in the meantime."""
        from diffq_exp.sweeps.sweep import DONE, status

        composed = self._composed(waiting)
        elsewhere = waiting.behind is not None and waiting.behind.resolve() == composed.folder.resolve()
        if (composed.cfg.restart and not elsewhere) or (state := status(composed)) not in DONE:
            return composed
        self._return(waiting, composed, 0 if state == "finished" else 1)
        self._note(waiting, composed, state, "", ran=False)
        return None

    def _return(self, waiting: _Waiting, job: Job, code: int) -> None:
        """Give a job's score to the sweeper, and its exit code to the command."""
        from diffq_exp.runs.job import JobScore

        self._returns[waiting.number] = _returned(job, JobStatus.COMPLETED, JobScore.of(job.folder, code))
        self._codes.append(code)

    def _start(self, waiting: _Waiting, job: Job, slot: int) -> Future[Outcome]:
        import cloudpickle
        from pebble import concurrent

        from diffq_exp.parallel.place import places

        chosen = [self._gpus[(slot * self.ranks + i) % len(self._gpus)] for i in range(self.ranks) if self._gpus]
        hydra = cloudpickle.dumps((Singleton.get_state(), self.hydra_context, self.task_function, job.cfg))
        name = _name(waiting)
        begin = concurrent.process(name=name, daemon=False, context=context())(work)  # type: ignore[call-overload]
        self._deadlines.begin(name)
        first, *others = [
            begin(hydra, job.folder, self._threads, ",".join(chosen) or None, place) for place in places(self.ranks)
        ]
        self._others[first] = others
        self._display.started()
        future: Future[Outcome] = first
        return future

    def _end(self, future: Future[Outcome], waiting: _Waiting, job: Job, stopping: bool) -> list[_Waiting]:
        """Note how a job ended; -> what is to be tried again: it, where it found another process at work."""
        from pebble import ProcessExpired

        from diffq_exp.runs.run_folder import FolderBusy
        from diffq_exp.sweeps.sweep import ended, status

        _end_others(self._others.pop(future, []))
        code, reason, late = 1, "", self._deadlines.reasons.get(_name(waiting))
        try:
            code, reason, untracked = future.result()
            if late and code:
                code, reason = 1, self._recorded(waiting, job, late)
            self._return(waiting, job, code)
            self._warn(untracked)
        except FolderBusy as busy:
            self._display.returned()
            return [waiting._replace(behind=busy.path)]
        except ProcessExpired as death:
            self._returns[waiting.number] = _returned(job, JobStatus.FAILED, death)
            reason = late or cause(death.exitcode)
            self._codes.append(1)
            if not stopping:
                reason = self._recorded(waiting, job, reason)
        except Exception as error:  # of Hydra or pebble, before or after the run
            self._returns[waiting.number] = _returned(job, JobStatus.FAILED, error)
            reason = f"{type(error).__name__}: {error}"
            self._codes.append(1)
        self._note(waiting, job, ended(status(job), bool(code and job.cfg.restart)), reason)
        return []

    def _recorded(self, waiting: _Waiting, job: Job, reason: str) -> str:
        """Leave the reason in the record of a run that did not come to its end by itself; -> it."""
        from diffq_exp.command.signature import record_of
        from diffq_exp.runs.run_folder import FolderError, record_death

        try:
            record = record_of(job.cfg, job.cfg.hydra.runtime.choices, waiting.overrides, job.cfg.hydra)
            record_death(job.folder, record, reason)
        except (FolderError, ValueError, OSError) as error:
            reason += f"; {error}"
        return reason

    def _warn(self, untracked: str) -> None:
        """Say W&B's trouble with a job, once for all jobs that have the same."""
        from diffq_exp.results.run_files import LOG

        if untracked and (kind := untracked.partition(" (")[0]) not in self._warned:
            self._warned.add(kind)
            log.warning(f"{untracked} (that of other jobs stands in their {LOG})")

    def _note(self, waiting: _Waiting, job: Job, status: str, reason: str, ran: bool = True) -> None:
        from diffq_exp.results.records import RunRecord, read_record

        record = read_record(job.folder) if status != "unreadable" else RunRecord()
        self.reasons[job.folder] = reason
        overrides = " ".join(waiting.overrides) or "the defaults"
        self._display.ended(overrides, status, record, record.reason or reason, ran)


def _name(waiting: _Waiting) -> str:
    """Of the processes of a job."""
    return f"job {waiting.number}: {' '.join(waiting.overrides)}"


def _end_others(others: list[Future[Outcome]]) -> None:
    """See that the other ranks of a job that has ended end too; they do so by themselves, as a rule."""
    for future in wait(others, PATIENCE).not_done:
        future.cancel()


def _first_free(queue: deque[_Waiting]) -> _Waiting | None:
    """Take the first job out of the queue that no other process is known to be at work on."""
    from diffq_exp.results.run_files import is_locked

    for _ in range(len(queue)):
        waiting = queue.popleft()
        if waiting.behind is None or not is_locked(waiting.behind):
            return waiting
        queue.append(waiting)
    return None


def _first_ended(running: Collection[Future[Outcome]]) -> Collection[Future[Outcome]]:
    """Wait a moment for jobs to end; -> those that did."""
    if running:
        return wait(running, LOOK_SECONDS, FIRST_COMPLETED).done
    time.sleep(LOOK_SECONDS)  # all that is left is behind other processes
    return []


def _returned(job: Job, status: JobStatus, value: object) -> JobReturn:
    return JobReturn(overrides=list(job.overrides), cfg=job.cfg, status=status, _return_value=value)
