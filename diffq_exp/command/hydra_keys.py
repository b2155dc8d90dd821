"""Errors of Hydra's own keys, which Hydra meets when it begins a run: its log, callbacks, the current folder."""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..common.files import user_path
from .consumption import FLOAT32
from .network_files import pretrained_folder
from .ranges import FOLDERS, PATHS, shown
from .resolution import unresolved_errors
from .targets import named_error
from .values import plain

READ = (  # when a run begins; the words of the command, as they were typed, are not resolved
    "run", "sweep", "output_subdir", "verbose", "callbacks", "hydra_logging", "job_logging",
    "job.name", "job.chdir", "job.env_set", "job.env_copy",
)  # fmt: skip


def hydra_errors(cfg: DictConfig) -> list[str]:
    """The errors of a composed job's `hydra`."""
    return unresolved_errors(cfg, [f"hydra.{key}" for key in READ]) or [
        *_verbose_errors(plain(cfg.hydra.verbose)),
        *_callback_errors(plain(cfg.hydra.callbacks)),
        *(_here_errors(cfg) if cfg.hydra.job.chdir else []),
    ]


def _verbose_errors(value: object) -> list[str]:
    right = isinstance(value, (bool, str, list))
    return [] if right else [f"hydra.verbose={shown(value)}: true, false or names of loggers are allowed"]


def _callback_errors(callbacks: dict[str, object]) -> list[str]:
    targets = {key: one.get("_target_") if isinstance(one, dict) else None for key, one in callbacks.items()}
    errors = {key: named_error(target) for key, target in targets.items()}
    return [
        f"hydra.callbacks.{key}._target_={shown(targets[key])}: {error}" for key, error in errors.items() if error
    ]


def _here_errors(cfg: DictConfig) -> list[str]:
    """Paths that would lead elsewhere from the folder of the run."""
    given = {key: OmegaConf.select(cfg, key) for key in PATHS if key not in FOLDERS}
    given = {key: value for key, value in given.items() if value != FLOAT32}
    given |= {"model.name": cfg.model.name} if pretrained_folder(cfg.model) is not None else {}
    return [
        f"{key}={value}: hydra.job.chdir=true has the run in a folder of its own; give the whole path"
        for key, value in given.items()
        if isinstance(value, str) and not user_path(value).is_absolute() and os.path.lexists(value)
    ]


def package_errors(cfg: DictConfig, kind: str, package: str) -> list[str]:
    """A part of the configuration that is to be shown, and is not there. kind: what --cfg says."""
    of_hydra = package.partition(".")[0] == "hydra"
    if package == "_global_" or (kind in ("all", "hydra" if of_hydra else "job") and _is_there(cfg, package)):
        return []
    return [f"--package {package}: is not in the configuration that --cfg {kind} shows"]


def _is_there(cfg: DictConfig, key: str) -> bool:
    try:
        return OmegaConf.select(cfg, key) is not None
    except OmegaConfBaseException:  # of brackets, say
        return False
