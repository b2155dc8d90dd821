"""What Hydra calls: one composed config, in the process that does the run.

In a module of its own, so that a process of a sweep can import it by name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .startup import uncollected

codes: list[int] = []  # of the jobs that ran in this process


def job(cfg: DictConfig, background: bool = False) -> int:
    """Do the run; -> exit code. Ends the process, and so the sweep, where a signal stopped the run.

    background: say nothing on the terminal, and raise FolderBusy where another process is at work on the run. In
    the foreground the job of a sweep waits for that process, and a run of its own is refused.
    """
    with uncollected("torch"):
        from ..training.stopping import hand_on
        from .display import log_to_console, log_to_nobody
        from .run import run

    (log_to_nobody if background else log_to_console)()
    hydra_cfg = HydraConfig.get()
    asked = {
        "hydra": OmegaConf.create({"hydra": hydra_cfg}),
        "overrides": OmegaConf.create(list(hydra_cfg.overrides.task)),
    }
    folder = shown_folder(Path(hydra_cfg.runtime.output_dir))
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    if_busy = "raise" if background else "wait" if sweep else "refuse"
    code = run(cfg, folder, dict(hydra_cfg.runtime.choices), asked, if_busy)
    if code > 128:
        hand_on(code)
        sys.exit(code)
    codes.append(code)
    return code


def shown_folder(folder: Path) -> Path:
    """The folder as it is shown, and as another run may be given it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
