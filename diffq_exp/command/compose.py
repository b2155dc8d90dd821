"""From overrides to composed configurations, before anything runs or is written.

Hydra takes 70 to 140 ms to compose a configuration, most of it for the defaults list. So the choices of groups are
composed once; plain keys and keys of nodes are set in a copy, by the function that Hydra itself uses for them.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..common.files import user_path
from ..common.names import nearest
from .overrides import parse, text_of
from .ranges import shown
from .resolution import said
from .schema import GROUPS, conf_dir, register
from .signature import register_resolver, signature

UNKNOWN = re.compile(r"Could not override '(hydra\..*)'")


@dataclass(frozen=True)
class Job:
    """One run that a command line asks for.

    overrides: without Hydra's own, which hold for all jobs. cfg: composed, Hydra's configuration included.
    """

    overrides: tuple[str, ...]
    cfg: DictConfig
    folder: Path
    signature: str


class Files(ConfigRepository):
    """Hydra's YAML files; one that cannot be read is named. Raises: ValueError."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        try:
            return super().load_config(config_path)
        except (YAMLError, UnicodeError, OSError, OmegaConfBaseException) as error:
            source = self._find_object_source(config_path, ObjectType.CONFIG)
            place = "" if source is None else f"{source.path}/"
            raise ValueError(f"{place}{config_path.removesuffix('.yaml')}.yaml: {said(error)}") from error


class Loader(ConfigLoaderImpl):
    """Hydra's, with what Hydra leaves to those who read a configuration: nodes that are none, `~` in folders.

    Every configuration comes from here: of runs, of sweeps, and of jobs that launchers and sweepers compose anew.
    """

    def __init__(self, search: ConfigSearchPath) -> None:
        super().__init__(search)
        self.repository = Files(search)

    def load_configuration(self, *args: Any, **named: Any) -> DictConfig:
        try:
            cfg = super().load_configuration(*args, **named)
        except KeyError as error:
            if isinstance(error, OmegaConfBaseException):
                raise
            raise ValueError(f"hydra.job.env_copy: the environment has no {error.args[0]}") from error
        for name in ("launcher", "sweeper"):
            if not OmegaConf.is_dict(cfg.hydra[name]):
                raise ValueError(f"hydra.{name}={shown(cfg.hydra[name])}: hydra/{name}=NAME chooses one")
        for section in (cfg.hydra.run, cfg.hydra.sweep):
            typed: Any = OmegaConf.to_container(section, resolve=False)
            if typed["dir"].startswith("~"):
                section.dir = str(user_path(typed["dir"]))
        return cfg


class Composer:
    """Composes conf/ and, before it, the user's `config_dir`."""

    def __init__(self, config_name: str = "config", config_dir: Path | None = None) -> None:
        register()
        register_resolver()
        version.setbase("1.3")
        search = create_config_search_path(str(conf_dir()))
        if config_dir is not None:
            search.prepend(provider="command-line", path=f"file://{config_dir.resolve()}")
        self.config_name = config_name
        self.hydra = Hydra("train", Loader(search))
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of one job, Hydra's own included; it belongs to the caller. Raises: ValueError."""
        parsed = [parse(text) for text in overrides]
        structure = tuple(text_of(override) for override in parsed if is_structure(override))
        try:
            cfg = copy.deepcopy(self._of_structure(structure))
            ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if not is_structure(o)], cfg)
            _note_overrides(cfg, parsed)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            found = UNKNOWN.match(str(error))
            raise ValueError(self._unknown(found[1], parsed) if found else said(error)) from error
        return cfg

    def _unknown(self, key: str, overrides: Sequence[Override]) -> str:
        """What to say of a key of Hydra's own that is not there: the nearest one."""
        chosen = [text_of(one) for one in overrides if is_structure(one) and "." not in one.key_or_group]
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(self._of_structure(tuple(chosen)), parent)
        near = nearest(last, map(str, node)) if OmegaConf.is_dict(node) else []
        return f"{key}: unknown" + (f"; the nearest is {parent}.{near[0]}" if near else "; --cfg hydra shows all")

    def _of_structure(self, overrides: tuple[str, ...]) -> DictConfig:
        if overrides not in self._composed:
            self._composed[overrides] = self.hydra.compose_config(
                self.config_name, list(overrides), RunMode.RUN, from_shell=False
            )
        return self._composed[overrides]

    def of_sweep(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration that Hydra gives to sweepers and launchers. Raises: HydraException.

        A key that only files of its grids have, as the path of their data set, is noted among the overrides alone.
        """
        parsed = [parse(text) for text in overrides]
        structure = [text_of(override) for override in parsed if is_structure(override)]
        cfg = self.hydra.compose_config(self.config_name, [*structure, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        for override in parsed:
            if not (is_structure(override) or override.is_sweep_override()):
                with suppress(ConfigCompositionException):
                    ConfigLoaderImpl._apply_overrides_to_config([override], cfg)
        cfg.hydra.overrides.task = [text_of(override) for override in parsed if not override.is_hydra_override()]
        return cfg


@cache
def composer(config_name: str = "config", config_dir: Path | None = None) -> Composer:
    """Kept for the life of the process, with all that it composed."""
    return Composer(config_name, config_dir)


def is_structure(override: Override) -> bool:
    """Whether an override chooses YAML files or is Hydra's own, and so has to be there when Hydra composes."""
    return override.key_or_group in GROUPS or override.is_hydra_override()


def _note_overrides(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Write into Hydra's configuration what it says of the overrides of a job."""
    own = [override for override in overrides if not override.is_hydra_override()]
    form = cfg.hydra.job.config.override_dirname
    cfg.hydra.overrides.task = [text_of(override) for override in own]
    cfg.hydra.job.override_dirname = get_overrides_dirname(own, form.exclude_keys, form.item_sep, form.kv_sep)
    cfg.hydra.runtime.cwd = os.getcwd()


def numbered(cfg: DictConfig, number: int, multirun: bool) -> DictConfig:
    """The configuration, told which job it is of; its folder may be named after that."""
    with open_dict(cfg):
        cfg.hydra.mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        if multirun:
            cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
    return cfg


def job(overrides: tuple[str, ...], cfg: DictConfig) -> Job:
    """The job of a numbered configuration; its folder is where Hydra puts it. Raises: OmegaConf's; OSError."""
    own = tuple(text for text in overrides if not parse(text).is_hydra_override())
    sweep = cfg.hydra.sweep
    multirun = cfg.hydra.mode == RunMode.MULTIRUN
    folder = Path(sweep.dir) / sweep.subdir if multirun else Path(cfg.hydra.run.dir)
    return Job(own, cfg, folder, signature(cfg))
