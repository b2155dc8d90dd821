"""Errors of a sweep: its grids, its options, its launcher, values that our sweeper cannot list."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from ..common.names import nearest
from ..parallel.place import place_of, ranks_error
from .compose import Job
from .consistency import without_validation
from .consumption import SOURCE_KEYS, UNSIGNED_KEYS
from .overrides import grid_overrides, parse_all, text_of
from .ranges import Range, shown
from .resolution import unresolved_errors
from .schema import NODES, PLAIN
from .signature import LOCATIONS
from .values import plain, range_error

LAUNCH = {"hydra/launcher": "processes", "hydra/sweeper": "grids"}  # with our choices, of conf/launching.yaml
PROCESSES = {
    "n_jobs": Range(int, low=1, optional=True),
    "timeout_minutes": Range(float, above=0, optional=True),
    "gpus_per_job": Range(int, low=1),
}
ONCE = {  # keys of which a sweep has one value -> why
    "dry_run": "it says what the command does",
    "restart": "it says what the command does",
    "hydra.sweep.dir": "hydra.sweep.subdir names the folder of each job",
}
NO_PART = (  # of a run: how it is done, what is told of it; sources are, by what they hold
    *(key for key in UNSIGNED_KEYS if key not in (*ONCE, *SOURCE_KEYS)),
    "tracking",
    *(f"dataset.{key}" for key in LOCATIONS),
)
Compose = Callable[[Sequence[str]], DictConfig]


def sweep_errors(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """cfg: what the command line chooses, without its values. typed: its overrides."""
    errors = [
        f"{text_of(override)}: Hydra's own keys take one value"
        for override in typed
        if override.is_hydra_override() and override.is_sweep_override()
    ]
    if errors := errors + unresolved_errors(cfg, ["hydra.launcher", "hydra.sweeper"]):
        return errors
    errors = _plugin_errors("launcher", Launcher, cfg) + _plugin_errors("sweeper", Sweeper, cfg)
    if str(cfg.hydra.launcher.get("_target_")).endswith(".ProcessLauncher"):
        given = {key: value for key, value in cfg.hydra.launcher.items() if key in PROCESSES}
        found = [range_error(f"hydra.launcher.{key}", given[key], PROCESSES[key]) for key in given]
        errors += [error for error in found if error]
    return errors + (_sweeper_errors(cfg, typed) if _is_ours(cfg) else [])


def _plugin_errors(name: str, kind: type[Plugin], cfg: DictConfig) -> list[str]:
    """A launcher or sweeper that Hydra would not start: it is none, or takes no such key."""
    node = cfg.hydra[name]
    known = {f"{one.__module__}.{one.__name__}": one for one in Plugins.instance().discover(kind)}
    target = str(node.get("_target_"))
    if target not in known:
        return [f"hydra.{name}._target_={target}: one of {', '.join(sorted(known))} is allowed"]
    taken = signature(known[target]).parameters
    if any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        return []
    unknown = [key for key in node if key not in taken and not str(key).startswith("_")]
    return [f"hydra.{name}.{key}: unknown; allowed are {', '.join(taken) or 'none'}" for key in unknown]


def score_errors(cfg: DictConfig) -> list[str]:
    """A job without a validation score, on which a sweeper of Hydra's that chooses values would go."""
    target = str(cfg.hydra.sweeper.get("_target_"))
    if _is_ours(cfg) or target.endswith(".BasicSweeper") or not without_validation(cfg):
        return []
    return [f"val_fraction=0: {target.rpartition('.')[2]} chooses by the validation score, and needs a part for it"]


def agreement_errors(jobs: Sequence[Job]) -> list[str]:
    """Jobs that differ in what they have together: all of a sweep, those of one run, those of one folder."""
    errors = [
        f"{key}: must be the same for all jobs; {why}"
        for key, why in ONCE.items()
        if len({str(OmegaConf.select(job.cfg, key)) for job in jobs}) > 1
    ]
    first: dict[str, Job] = {}
    owner: dict[Path, str] = {}
    for job in jobs:
        cfg = first.setdefault(job.signature, job).cfg
        errors += [
            f"{key}: is no part of what a run is, so that several values of it give the same run; one is allowed"
            for key in NO_PART
            if plain(OmegaConf.select(job.cfg, key)) != plain(OmegaConf.select(cfg, key))
        ]
        if owner.setdefault(job.folder, job.signature) != job.signature:
            errors.append(f"hydra.sweep.subdir: several jobs would write to {job.folder}")
    return list(dict.fromkeys(errors))


def ranks_errors(multirun: bool, jobs: Sequence[DictConfig]) -> list[str]:
    """Of jobs whose runs several processes are to share: those of this command, or those of the launcher."""
    world = place_of().world
    if multirun and world > 1:
        return [f"a sweep: {world} ranks do one run; start it by itself, its launcher starts ranks for each run"]
    errors = (ranks_error(cfg, _ranks_of_launcher(cfg.hydra.launcher) if multirun else world) for cfg in jobs)
    return [error for error in errors if error is not None]


def _ranks_of_launcher(launcher: DictConfig) -> int:
    """Ours has gpus_per_job, those of submitit nodes and tasks_per_node."""
    return math.prod(int(launcher.get(key) or 1) for key in ("gpus_per_job", "nodes", "tasks_per_node"))


def grids_of(cfg: DictConfig) -> list[dict[str, object]]:
    """The grids of a sweep with our sweeper; entries that are no grids are left out."""
    grids = plain(cfg.hydra.sweeper.get("grids")) if _is_ours(cfg) else None
    return [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []


def _is_ours(cfg: DictConfig) -> bool:
    return str(cfg.hydra.sweeper.get("_target_")).endswith(".GridSweeper")


def _sweeper_errors(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    errors = _by_errors(plain(cfg.hydra.sweeper.get("by", [])))
    grids = plain(cfg.hydra.sweeper.get("grids", []))
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        errors.append(f"hydra.sweeper.grids={shown(grids)}: a list of {{key: [values]}} is allowed")
    given = [override for grid in grids_of(cfg) for override in parse_all(grid_overrides(grid), [])]
    errors += [f"{text_of(o)}: Hydra's own keys are not for grids" for o in given if o.is_hydra_override()]
    errors += [
        f"{text_of(override)}: intervals need another sweeper (hydra/sweeper=...) or a study "
        "(python -m diffq_exp.search trials=... over=...); this one takes values"
        for override in [*typed, *given]
        if override.is_interval_sweep()
    ]
    if given and any(override.key_or_group == "experiment" and override.is_sweep_override() for override in typed):
        errors.append("experiment: one that brings its own sweep stands alone")
    return errors


def _by_errors(by: object) -> list[str]:
    if not isinstance(by, list):
        return [f"hydra.sweeper.by={shown(by)}: a list of keys is allowed"]
    known = [*NODES, *PLAIN]
    return [
        f"hydra.sweeper.by: {key!r} is unknown; the nearest is {nearest(str(key), known)[0]}"
        for key in by
        if str(key) not in known and str(key).partition(".")[0] not in NODES
    ]


# ---- the launcher that an experiment chooses ---------------------------------------------------------------------


def launch_choices(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """What the experiment of a sweep chooses of LAUNCH, as overrides, so that it holds for all of its jobs."""
    given = {override.key_or_group for override in typed}
    chosen = {group: cfg.hydra.runtime.choices.get(group) for group in LAUNCH}
    return [f"{group}={name}" for group, name in chosen.items() if group not in given and name != LAUNCH[group]]


def launch_errors(
    experiment: str, own: list[str], chosen: list[str], sweep: DictConfig, compose: Compose
) -> list[str]:
    """Errors of an experiment that asks for another launcher than its sweep has.

    own: Hydra's overrides, as typed; chosen: launch_choices. Raises: ValueError.
    """
    text = f"{experiment}: has {{}}, which a sweep has once: type it, or let the sweep's experiment have it"
    groups = [word for word in own if word.startswith("hydra/")]
    asked, without = (compose([*first, *groups]).hydra.runtime.choices for first in ([experiment], []))
    for group in LAUNCH:
        if asked.get(group) not in (without.get(group), sweep.hydra.runtime.choices.get(group)):
            return [text.format(f"{group}={asked.get(group)}")]
    asked, without = (compose([*first, *own, *chosen]).hydra.launcher for first in ([experiment], []))
    return [
        text.format(f"hydra.launcher.{key}={shown(value)}")
        for key, value in asked.items()
        if value not in (without.get(key), sweep.hydra.launcher.get(key))
    ]


def idle_launch_warnings(cfg: DictConfig) -> list[str]:
    """A launcher that is chosen for a command that is no sweep."""
    chosen = {group: cfg.hydra.runtime.choices.get(group) for group in LAUNCH}
    return [
        f"{group}={name}: is for sweeps (-m); this run is done by the process itself"
        for group, name in chosen.items()
        if name != LAUNCH[group]
    ]
