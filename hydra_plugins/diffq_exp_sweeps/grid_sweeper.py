"""Hydra's own sweeper makes one product; this one makes a product of each of a list of grids.

What a sweep is beyond its list of jobs (what is done already, its record, its report) stands in diffq_exp/sweep.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class GridSweeper(Sweeper):
    """grids: mappings of keys to lists of values. by: the keys that make a method in the report."""

    def __init__(self, grids: Sequence[Mapping[str, Any]] = (), by: Sequence[str] = ("quantizer",)) -> None:
        super().__init__()
        self.grids: Any = OmegaConf.to_container(OmegaConf.create(list(grids)))
        self.by = list(by)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run what is left of the sweep. Ends the process with exit code 1 where a job failed."""
        from diffq_exp.sweep import Sweep, carry_out

        assert self.config is not None
        jobs = self._jobs(arguments)
        sweep = Sweep.of(jobs, arguments, self.by, Path(self.config.hydra.sweep.dir))
        code = carry_out(sweep, self.launcher)
        if code:
            sys.exit(code)
        return []

    def _jobs(self, arguments: list[str]) -> list[Any]:
        from diffq_exp.checks import group_choices
        from diffq_exp.compose import compose_words, job
        from diffq_exp.words import grid_words, jobs_of, merged, parse

        assert self.config is not None
        hydra = self.config.hydra
        search = tuple(Path(one.path) for one in hydra.runtime.config_sources if one.provider == "command-line")
        ours: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)  # ${seed} is each job's own
        typed, known = [parse(word) for word in arguments], partial(group_choices, search=search)
        grids = [[parse(word) for word in grid_words(grid)] for grid in self.grids or [{}]]
        jobs: list[Any] = []
        for words in [words for grid in grids for words in jobs_of(merged(typed, grid), known)]:
            cfg = compose_words(hydra.job.config_name, [*ours, *words], search)
            jobs.append(job(words, cfg, len(jobs), multirun=True))
        return jobs
