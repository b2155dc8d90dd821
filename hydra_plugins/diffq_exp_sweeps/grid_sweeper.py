"""Carries out the jobs that the check of the command line has made of the grids (diffq_exp/command/overrides.py).

Hydra's own sweeper makes one product of what is typed; a sweep here is a list of grids, each a product. What a
sweep is beyond its jobs (what is done already, its record, its report) stands in diffq_exp/sweeps/sweep.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from diffq_exp.sweeps.sweep import Sweep


class GridSweeper(Sweeper):
    """grids: keys with lists of values, read by the check. by: the keys that make a method in the report; none: all
    that are swept.

    plan: the sweep to carry out, a diffq_exp.sweeps.sweep.Sweep; set before `sweep` is called.
    """

    def __init__(self, grids: Sequence[Mapping[str, object]] = (), by: Sequence[str] = ()) -> None:
        super().__init__()
        self.by = by
        self.plan: Sweep | None = None

    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> int:
        """Do what is left of the sweep; -> exit code. The arguments are in the plan already."""
        from diffq_exp.sweeps.sweep import carry_out

        if self.plan is None:
            raise RuntimeError("GridSweeper has no plan; it is started by python -m diffq_exp.train")
        return carry_out(self.plan, self.launcher, self.by)
