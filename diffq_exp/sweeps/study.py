"""A study by Optuna: which settings give a high validation score in a small file.

Each trial is an ordinary run, in the folder that it would have if it was typed, so that sweeps and reports know it.
The study is a journal, outputs/.sweeps/NAME.journal, on which several processes, or jobs of a cluster, may work:
each asks for settings until the study has as many trials as were asked for. A trial whose process was killed is
continued by the next process that comes. One that another clearly dominates is stopped early (`dominated`).
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from ..command.check import Plan, check
from ..command.compose import Job
from ..command.overrides import grid_overrides
from ..common.units import MB
from ..results.metrics import read_rows
from ..results.publish import report_sweep
from ..results.records import read_record
from ..results.run_files import METRICS, is_locked
from ..results.sweep_records import SWEEPS
from .one_run import do_run
from .sweep import record_jobs

SAMPLERS = ("tpe", "nsga2")
CLEARLY = 1.25  # times the size, and times the validation loss, of a trial that dominates
EARLIEST = 0.5  # share of training before which no trial is stopped
EXAMPLE = "{penalty: {low: 1, high: 1000, log: true}, group_size: [4, 8, 16]}"
FOUND, NOTHING = 0, 1  # exit codes

Space = Mapping[str, BaseDistribution]


# ---- what is searched --------------------------------------------------------------------------------------------


def space_of(over: str) -> dict[str, BaseDistribution]:
    """The keys of a study: lists of values, or ranges. Raises: ValueError naming what is wrong with `over`."""
    try:
        values = OmegaConf.to_container(OmegaConf.create(over))
    except Exception as error:  # OmegaConf's and YAML's have no base of their own
        raise ValueError(f"over={over}: not understood; {EXAMPLE} say") from error
    if not isinstance(values, dict) or not values or None in values.values():
        raise ValueError(f"over={over}: keys with their values are expected; {EXAMPLE} say")
    return {str(key): _distribution(str(key), value) for key, value in values.items()}


def _distribution(key: str, value: object) -> BaseDistribution:
    if isinstance(value, list) and value:
        choices = [one if isinstance(one, (bool, int, float, str)) else json.dumps(one) for one in value]
        return CategoricalDistribution(choices)
    if not isinstance(value, dict):
        raise ValueError(f"over: {key}: {value}: a list of values or a range is allowed; {EXAMPLE} say")
    low, high, log = value.get("low"), value.get("high"), value.get("log", False)
    numbers = [end for end in (low, high) if isinstance(end, (int, float)) and not isinstance(end, bool)]
    if len(numbers) < 2 or not isinstance(log, bool) or set(value) - {"low", "high", "log"}:
        raise ValueError(f"over: {key}: {value}: a range has low, high and log; {EXAMPLE} say")
    least, most = numbers
    if not least < most or not math.isfinite(least) or not math.isfinite(most) or (log and least <= 0):
        raise ValueError(f"over: {key}: {value}: low < high is allowed, and with log: true low > 0")
    if isinstance(least, int) and isinstance(most, int) and not log:
        return IntDistribution(least, most)
    return FloatDistribution(float(least), float(most), log=log)


def words_of(params: Mapping[str, object]) -> list[str]:
    """Settings as overrides; numbers of a range with four digits."""
    return grid_overrides({key: [float(f"{v:.4g}") if type(v) is float else v] for key, v in params.items()})


def each_value(space: Space) -> Iterator[list[str]]:
    """Overrides in which each listed value, and each end of a range, comes at least once."""
    values = {key: _values(distribution) for key, distribution in space.items()}
    for number in range(max(map(len, values.values()))):
        yield words_of({key: own[min(number, len(own) - 1)] for key, own in values.items()})


def _values(distribution: BaseDistribution) -> list[object]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return [distribution.low, distribution.high]


# ---- the study ---------------------------------------------------------------------------------------------------


def carry_out(overrides: list[str], first: Job, space: Space, trials: int, sampler: str, command: str) -> int:
    """Do trials until the study has `trials`, then report; -> exit code: 0, or 1 where no trial has finished.

    first: a job of the study, for its folder. command: what was typed. Raises: one_run.Stopped.
    """
    outputs = first.folder.parent
    name = f"study-{_digest(overrides, space)}"
    study = _open(outputs, name, sampler)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        _do(study, trial, overrides, abandoned=True)
    while (count := len(study.get_trials(deepcopy=False))) < trials:
        study.sampler = _sampler(sampler, name, count)
        number = study.ask(dict(space)).number
        _do(study, study.get_trials()[number], overrides)
        _record(study, outputs, name, overrides, command)  # now, as the next trial may be the last of this process
    _record(study, outputs, name, overrides, command)
    report_sweep(outputs, name)
    return _show(study, outputs, name)


def _digest(overrides: Sequence[str], space: Space) -> str:
    text = json.dumps([sorted(overrides), {key: repr(space[key]) for key in sorted(space)}])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _open(outputs: Path, name: str, sampler: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (outputs / SWEEPS).mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(outputs / SWEEPS / f"{name}.journal")))
    study = optuna.create_study(
        storage=storage, study_name=name, directions=["maximize", "minimize"], load_if_exists=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(["validation (lower is better: times -1)", "MB of the file"])  # for its dashboard
    return study


def _sampler(kind: str, name: str, count: int) -> optuna.samplers.BaseSampler:
    """A sampler whose draws follow from the study and its trials, so that processes draw differently."""
    seed = int(hashlib.sha256(f"{name} {count}".encode()).hexdigest()[:8], 16)
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _do(study: optuna.Study, trial: FrozenTrial, overrides: list[str], abandoned: bool = False) -> None:
    """Do a trial's run and tell the study. One that another process is at work on is left to it."""
    words = (*overrides, *words_of(trial.params))
    plan = _planned(words)
    if plan.errors:
        _tell(study, trial, TrialState.FAIL, plan.errors[0])
        return
    folder = plan.jobs[0].folder
    if is_locked(folder):
        if not abandoned:
            _tell(study, trial, TrialState.FAIL, f"another process is at work on {folder}")
        return
    print(f"trial {trial.number}: {' '.join(words_of(trial.params))}", flush=True)
    others = [other for other in _folders(study, overrides) if other != folder]
    code, record = do_run([*words], folder, lambda: dominated(folder, others))
    headline, size = record.compared_by, record.number("size_mb", "file")
    score = record.number("val", headline.name)
    if code == 0 and record.status == "finished" and score is not None and size is not None:
        study.tell(trial.number, [headline.goodness(score), size], skip_if_finished=True)
    elif record.status == "interrupted":
        _tell(study, trial, TrialState.PRUNED, "stopped early: another trial dominates it")
    elif record.status != "running":
        _tell(study, trial, TrialState.FAIL, record.reason or record.status or f"its run ended with code {code}")


def _tell(study: optuna.Study, trial: FrozenTrial, state: TrialState, reason: str) -> None:
    print(f"trial {trial.number}: {reason}", flush=True)
    study.tell(trial.number, state=state, skip_if_finished=True)


def _folders(study: optuna.Study, overrides: list[str]) -> list[Path]:
    """Those of the trials that have finished."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    return [_planned((*overrides, *words_of(trial.params))).jobs[0].folder for trial in finished]


@cache
def _planned(words: tuple[str, ...]) -> Plan:
    return check(words)


def dominated(folder: Path, others: Sequence[Path]) -> bool:
    """Whether a run is clearly worse than one of the finished `others` was at the same share of training.

    That is: at half of training or later, its size by the formula and its validation loss are both at least CLEARLY
    times the other's.
    """
    rows, epochs = read_rows(folder / METRICS), read_record(folder).config.get("epochs")
    if not rows or not isinstance(epochs, int) or not (mine := _size_and_loss(rows[-1])):
        return False
    share = len(rows) / epochs
    if not EARLIEST <= share < 1:
        return False
    theirs = [_size_and_loss(_row_at(share, read_rows(other / METRICS))) for other in others]
    return any(one and mine[0] >= CLEARLY * one[0] and mine[1] >= CLEARLY * one[1] for one in theirs)


def _row_at(share: float, rows: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    """The row of the epoch at this share of training."""
    return rows[max(round(share * len(rows)) - 1, 0)] if rows else {}


def _size_and_loss(row: Mapping[str, Any]) -> tuple[float, float] | None:
    size, loss = row.get("size_mb", {}).get("true"), row.get("val", {}).get("loss")
    return (size, loss) if isinstance(size, float) and isinstance(loss, float) else None


# ---- at the end --------------------------------------------------------------------------------------------------


def _record(study: optuna.Study, outputs: Path, name: str, overrides: list[str], command: str) -> None:
    """Leave the trials as a sweep, for `python -m diffq_exp.report`."""
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    plans = [_planned((*overrides, *words_of(trial.params))) for trial in done]
    jobs = {job.signature: job for plan in plans for job in plan.jobs}
    record_jobs(outputs, name, command, ("quantizer",), list(jobs.values()))


def _show(study: optuna.Study, outputs: Path, name: str) -> int:
    """The trials that no other beats in both, by size."""
    first = {tuple(words_of(trial.params)): trial for trial in reversed(study.best_trials)}  # of equal settings
    best = sorted(first.values(), key=lambda trial: trial.values[1])
    print(f"\n{name}: {len(study.trials)} trials; on the front:")
    print(f"{'trial':>5} {'validation':>10} {'bytes':>11}  settings")
    for trial in best:
        score, size = trial.values
        print(f"{trial.number:>5} {abs(score):>10.4f} {size * MB:>11,.0f}  {' '.join(words_of(trial.params))}")
    print(f"optuna-dashboard {outputs / SWEEPS / name}.journal opens the study")
    return FOUND if best else NOTHING
