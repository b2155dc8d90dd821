"""Carry out a checked command line: what hydra.main does, with configurations that are composed already.

Callbacks, output folder, environment, log and working directory are Hydra's own: `run_job` for a run, the chosen
sweeper and launcher for a sweep. Our own sweeper gets the jobs of the plan; any other makes its own from the
overrides.
"""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.utils import _run_hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, run_job
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext

from ..command.arguments import parser
from ..command.check import Plan
from ..command.resolution import said
from ..command.schema import conf_dir, register
from ..command.signature import register_resolver
from ..common.entry import MISTAKE
from ..runs.job import RunJob, exit_codes
from .sweep import Sweep, show_plan


def show(arguments: Namespace) -> int:
    """Print what --cfg, --info and --hydra-help ask for; -> exit code."""
    register()
    register_resolver()
    logging.raiseExceptions = False  # Hydra shows some of it by its log, and `| head` may read no more
    try:
        _run_hydra(arguments, parser(), RunJob(), str(conf_dir()), "config")
    except SystemExit as end:
        return MISTAKE if end.code else 0
    finally:
        logging.raiseExceptions = True
    return 0


def carry_out_plan(plan: Plan, typed: list[str]) -> int:
    """Do the run or the sweep of a command line, or with dry_run=true only say what it would do; -> exit code."""
    sweep = Sweep.of(plan.jobs, typed)
    if any(job.cfg.dry_run for job in sweep.jobs):
        show_plan(sweep)
        return 0
    GlobalHydra.instance().initialize(plan.composer.hydra)  # a user's own code may compose too
    try:
        return _carry_out(plan, sweep)
    finally:
        GlobalHydra.instance().clear()


def _carry_out(plan: Plan, sweep: Sweep) -> int:
    if (reason := _folder_error(plan)) is not None:
        return _refused(reason)
    try:
        context = _context(plan)
    except Exception as error:  # of Python's log, or of a callback of the user's
        return _refused(f"hydra.hydra_logging, hydra.callbacks: {said(error)}")
    return _launch_sweep(plan, sweep, context) if plan.multirun else _launch_run(plan, context)


def _refused(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return MISTAKE


def _folder_error(plan: Plan) -> str | None:
    """Make the folder of a run or of a sweep, as Hydra would; -> why it cannot be made."""
    key = "hydra.run.dir" if plan.launching is None else "hydra.sweep.dir"
    folder = plan.jobs[0].folder if plan.launching is None else Path(plan.launching.hydra.sweep.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{key}={folder}: cannot be made: {error.strerror}"
    return None


def _launch_run(plan: Plan, context: HydraContext) -> int:
    (job,) = plan.jobs
    context.callbacks.on_run_start(config=job.cfg, config_name=plan.composer.config_name)
    try:
        ended = run_job(RunJob(), job.cfg, "hydra.run.dir", None, context)
    except Exception as error:  # before the run, whose own errors are in what it returns
        return _refused(f"hydra.job, hydra.job_logging: {said(error)}")
    context.callbacks.on_run_end(config=job.cfg, config_name=plan.composer.config_name, job_return=ended)
    return int(ended.return_value.code)


def _launch_sweep(plan: Plan, sweep: Sweep, context: HydraContext) -> int:
    cfg, run_one = plan.launching, RunJob()
    assert cfg is not None
    context.callbacks.on_multirun_start(config=cfg, config_name=plan.composer.config_name)
    sweeper: Sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=context, task_function=run_one, config=cfg
    )
    if ours := hasattr(sweeper, "plan"):
        sweeper.plan = sweep
    returned = sweeper.sweep(list(cfg.hydra.overrides.task))
    context.callbacks.on_multirun_end(config=cfg, config_name=plan.composer.config_name)
    return int(returned) if ours else max([*run_one.codes, *exit_codes(returned)], default=0)


def _context(plan: Plan) -> HydraContext:
    cfg = plan.jobs[0].cfg if plan.launching is None else plan.launching
    configure_log(cfg.hydra.hydra_logging, cfg.hydra.verbose)
    return HydraContext(plan.composer.hydra.config_loader, Callbacks(cfg))
