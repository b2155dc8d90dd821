"""From words to configs and jobs, without Hydra's main: checks and sweeps need them before anything runs.

Hydra takes 70 to 140 ms to compose a config, most of it for the defaults list. Jobs of a sweep mostly differ in
plain values, so the choices are composed once and the values set in a copy, by the function that Hydra uses.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from .overrides import parse
from .schema import PLAIN, conf_dir, register
from .signature import register_resolver, signature


@dataclass(frozen=True)
class Job:
    """One run that a command line asks for; `words` leave out Hydra's own keys, which hold for all jobs."""

    words: tuple[str, ...]
    cfg: DictConfig  # with hydra
    folder: Path
    signature: str


def compose_words(config_name: str, words: Sequence[str], search: tuple[Path, ...] = ()) -> DictConfig:
    """What the words of one job give, Hydra's own config included. Raises: ValueError in one line."""
    parsed = [parse(word) for word in words]
    values = _apart(parsed)
    try:
        chosen = tuple(one.input_line or "" for one in parsed if one not in values)
        cfg = copy.deepcopy(_composed(config_name, chosen, search))
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    except (HydraException, OmegaConfBaseException, ValueError) as fault:
        raise ValueError(" ".join(str(fault).split())) from fault
    return cfg


def _apart(words: Sequence[Override]) -> list[Override]:
    """Those that set a plain key and nothing else, and may so be set in a copy of what the others give."""
    if any("${hydra." in (one.input_line or "") for one in words):  # a folder named after all the words, say
        return []
    plain = [one for one in words if one.key_or_group in PLAIN]
    signed = {one.key_or_group for one in plain if one.get_key_element() != one.key_or_group}  # ++lr=1, say
    return [one for one in plain if one.key_or_group not in signed]


@cache
def _composed(config_name: str, words: tuple[str, ...], search: tuple[Path, ...]) -> DictConfig:
    if GlobalHydra.instance().is_initialized():  # inside Hydra's main, which knows where to search
        return compose(config_name, list(words), return_hydra_config=True)
    register()
    register_resolver()
    if search:
        words = (*words, "hydra.searchpath=[" + ",".join(f"file://{path}" for path in search) + "]")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(config_name, list(words), return_hydra_config=True)


def job(words: tuple[str, ...], cfg: DictConfig, number: int, multirun: bool) -> Job:
    """The job of a composed config: its folder is where Hydra puts it. Raises: ValueError in one line."""
    with open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id = number, str(number)
    own = tuple(word for word in words if not parse(word).is_hydra_override())
    try:
        folder = Path(cfg.hydra.sweep.dir) / cfg.hydra.sweep.subdir if multirun else Path(cfg.hydra.run.dir)
        return Job(own, cfg, folder, signature(cfg))
    except OmegaConfBaseException as fault:
        raise ValueError(" ".join(str(fault).split())) from fault
