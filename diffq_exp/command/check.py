"""Check a command line before anything is written, loaded or imported, and say all errors at once.

Hydra stops at the first error, after it has made the run's folder. So the overrides are parsed here first, with
Hydra's own grammar and composition: each override by itself against the schema (values.py), then the composed
configuration of each job as a whole (consistency.py). An error is one line: the key, its value, what is allowed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .arguments import parse_arguments
from .compose import Composer, Job, composer, is_structure, job, numbered
from .consistency import (
    consistency_errors,
    folder_errors,
    missing_errors,
    nested_sweep_errors,
    removal_errors,
    target_errors,
    unused_warnings,
)
from .hydra_keys import hydra_errors, package_errors
from .overrides import Choices, first_job, grid_overrides, merged, overrides_of_jobs, parse, parse_all
from .paths import place_errors
from .resolution import said, unresolved_errors
from .schema import GROUPS, NODES, PLAIN, group_choices
from .signature import signature_kept
from .sweep_consistency import (
    agreement_errors,
    grids_of,
    idle_launch_warnings,
    launch_choices,
    launch_errors,
    ranks_errors,
    score_errors,
    sweep_errors,
)
from .values import choice_errors, value_errors


@dataclass
class Plan:
    """What a command line asks for: its jobs; or what is wrong with it: `errors`, and no jobs to rely on."""

    composer: Composer
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)  # as they were typed
    multirun: bool = False
    launching: DictConfig | None = None  # of a sweep: what Hydra gives to sweeper and launcher


def check(argv: Sequence[str]) -> Plan:
    """Check what stands after `python -m diffq_exp.train`, every job of a sweep. Raises: SystemExit of argparse."""
    return check_arguments(parse_arguments(argv))


def check_arguments(arguments: Namespace) -> Plan:
    """Check parsed arguments; writes nothing."""
    folder = Path(arguments.config_dir).resolve() if arguments.config_dir else None
    if folder is not None and not folder.is_dir():
        return Plan(composer(), [f"--config-dir {folder}: no such folder"])
    plan = Plan(composer(arguments.config_name or "config", folder), overrides=arguments.overrides)
    plan.errors += place_errors(arguments.config_dir, arguments.overrides)
    if plan.errors:
        return plan
    typed = list(parse_all(arguments.overrides, plan.errors))
    known = partial(group_choices, config_dir=folder)
    base = _compose(plan, first_job([o for o in typed if is_structure(o)], known), [])
    plan.multirun = arguments.multirun or (base is not None and base.hydra.mode == RunMode.MULTIRUN)
    grids: list[dict[str, object]] = [{}]
    chosen: list[str] = []
    if base is not None and plan.multirun:
        plan.errors += sweep_errors(base, typed)
        grids = grids_of(base) or [{}]
        chosen = launch_choices(base, typed)
        typed += parse_all(chosen, plan.errors)
    for grid in grids:
        _check_grid(plan, typed, grid, base, known)
    plan.errors += _launch_errors(plan, chosen)
    plan.errors += ranks_errors(plan.multirun, [each.cfg for each in plan.jobs])
    plan.errors = list(dict.fromkeys(plan.errors)) or agreement_errors(plan.jobs)
    if arguments.cfg and arguments.package and not plan.errors:
        plan.errors += package_errors(plan.jobs[0].cfg, arguments.cfg, arguments.package)
    if plan.errors:
        return plan
    unused = [unused_warnings(each.cfg, typed) for each in plan.jobs]
    plan.warnings = [text for key, text in (unused or [{}])[0].items() if all(key in one for one in unused)]
    plan.warnings += [] if base is None or plan.multirun else idle_launch_warnings(base)
    return plan


def _check_grid(
    plan: Plan, typed: list[Override], grid: dict[str, Any], base: DictConfig | None, known: Choices
) -> None:
    """Add the jobs of a grid to the plan, or their errors."""
    given = list(parse_all(grid_overrides(grid), plan.errors))
    right = _right_overrides(plan, typed, given, known)
    for overrides in _jobs(plan, _merged(typed, given, right), known):
        if (cfg := _compose(plan, overrides, plan.errors)) is not None:
            _resolve_as_before(plan, cfg)
            numbered(cfg, len(plan.jobs), plan.multirun)
            try:
                with signature_kept(cfg):
                    plan.errors += _job_errors(plan, cfg, base, typed)
                    plan.jobs += [] if plan.errors else [job(overrides, cfg)]
            except (ValueError, OSError, OmegaConfBaseException) as error:  # of odd values
                plan.errors.append(said(error))


def _job_errors(plan: Plan, cfg: DictConfig, base: DictConfig | None, typed: list[Override]) -> list[str]:
    """The errors of a composed job; those of its folder, which is named after the rest, where all else is right."""
    if errors := unresolved_errors(cfg, PLAIN) or unresolved_errors(cfg, NODES) or removal_errors(cfg, typed):
        return errors
    errors = missing_errors(cfg, typed) + consistency_errors(cfg)
    errors += nested_sweep_errors(cfg, base) + target_errors(cfg, typed)
    errors += score_errors(cfg) if plan.multirun else []
    return errors if errors or plan.errors else hydra_errors(cfg) or folder_errors(cfg, plan.multirun)


def _right_overrides(plan: Plan, typed: list[Override], given: list[Override], known: Choices) -> list[Override]:
    """The overrides that are right by themselves; the errors of the others go to the plan."""
    overrides = [*given, *typed]
    groups = [o for o in overrides if o.key_or_group in GROUPS]
    right = [o for o in groups if _keep(choice_errors(o, plan.multirun, known), plan.errors)]
    values = [o for o in overrides if o.key_or_group not in GROUPS]
    nodes = None
    if any(o.key_or_group.partition(".")[0] in NODES for o in values):
        structure = [*right, *(o for o in values if o.is_hydra_override())]
        nodes = _compose(plan, first_job(_merged(typed, given, structure), known), [])
    return right + [o for o in values if _keep(value_errors(o, plan.multirun, nodes, known), plan.errors)]


def _merged(typed: list[Override], given: list[Override], right: list[Override]) -> list[Override]:
    """The overrides of a grid and the typed ones, as far as they are right."""
    return merged([o for o in typed if o in right], [o for o in given if o in right])


def _jobs(plan: Plan, overrides: list[Override], known: Choices) -> list[tuple[str, ...]]:
    """The overrides of each job of a grid; none where they are too many."""
    try:
        return overrides_of_jobs(overrides, known)
    except ValueError as error:
        plan.errors.append(str(error))
        return []


def _keep(new: list[str], errors: list[str]) -> bool:
    errors += new
    return not new


def _compose(plan: Plan, overrides: Sequence[str], errors: list[str]) -> DictConfig | None:
    try:
        return plan.composer(overrides)
    except ValueError as error:
        errors.append(str(error))
        return None


def _resolve_as_before(plan: Plan, cfg: DictConfig) -> None:
    """Let what can be resolved once only, as ${now:...}, be in a configuration what it is in the first job's."""
    if plan.jobs:
        OmegaConf.copy_cache(plan.jobs[0].cfg, cfg)


def _launch_errors(plan: Plan, chosen: list[str]) -> list[str]:
    """Compose what launches a sweep; -> errors of the experiments that its jobs name.

    chosen: what the sweep's own experiment chooses of it.
    """
    if plan.errors or not plan.multirun:
        return []
    try:
        plan.launching = plan.composer.of_sweep([*plan.overrides, *chosen])
    except (HydraException, ValueError) as error:
        return [said(error)]
    _resolve_as_before(plan, plan.launching)
    own = [text for text in plan.overrides if parse(text).is_hydra_override()]
    others = {job.cfg.hydra.runtime.choices.experiment for job in plan.jobs}
    others -= {None, plan.launching.hydra.runtime.choices.experiment}
    return [
        error
        for experiment in sorted(others)
        for error in launch_errors(f"experiment={experiment}", own, chosen, plan.launching, plan.composer)
    ]
