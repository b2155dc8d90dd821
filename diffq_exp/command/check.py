"""All faults of a command line at once, before anything is written or loaded.

Hydra stops at the first fault, after it has made the run's folder. So the same words are parsed here first, with
Hydra's own grammar and composition: each override by itself against the schema, then what they give together.
A fault is one line: the key, what was given, what is allowed, and the nearest name of an unknown key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Glob, Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .compose import Job, compose_words, job
from .consistency import grid_faults, grids_of, out_of_range, sweep_faults, together, unused_warnings
from .overrides import grid_words, jobs_of, merged, parse_all
from .overrides import values as words_of
from .schema import GROUPS, NODE_RANGES, NODES, PLAIN, Range, conf_dir, shown


@dataclass
class Checked:
    """What the check of a command line found."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)  # what it asks for, if there are no faults


def check(argv: Sequence[str]) -> Checked:
    """Check the words after `python -m diffq_exp.train`, every job of a sweep; nothing is written."""
    args = get_args_parser().parse_intermixed_args(list(argv))
    search = (Path(args.config_dir).resolve(),) if args.config_dir else ()
    found = Checked([f"--config-dir {path}: no such folder" for path in search if not path.is_dir()])
    if found.faults:
        return found
    known = partial(group_choices, search=search)
    compose = partial(compose_words, args.config_name or "config", search=search)
    typed = list(parse_all(args.overrides, found.faults))
    structure = [one for one in typed if one.key_or_group in GROUPS or one.is_hydra_override()]
    base = _try(compose, next(iter(jobs_of(structure, known)), ()), [])
    multirun = args.multirun or (base is not None and base.hydra.mode == RunMode.MULTIRUN)
    grids: list[Any] = [{}]
    if base is not None and multirun:
        found.faults += sweep_faults(base, typed)
        grids = grids_of(base) or [{}]
    silent: list[dict[str, str]] = []  # for each job, the typed words without effect, and what to say of them
    for grid in grids:
        given = list(parse_all(grid_words(grid), found.faults))
        for words in _check_grid(typed, given, multirun, found.faults, compose, known):
            cfg = _try(compose, words, found.faults)
            if cfg is not None:
                silent.append(unused_warnings(cfg, typed))
                _check_job(words, cfg, base, multirun, found)
    found.faults = list(dict.fromkeys(found.faults)) or _shared_folders(found.jobs)
    found.warnings = [text for word, text in (silent or [{}])[0].items() if all(word in one for one in silent)]
    return found


def _check_job(
    words: tuple[str, ...], cfg: DictConfig, base: DictConfig | None, multirun: bool, found: Checked
) -> None:
    """Add a job to what was found, or its faults."""
    faults = together(cfg, multirun) + grid_faults(cfg, base)
    found.faults += faults
    if not faults:
        found.jobs.append(job(words, cfg, len(found.jobs), multirun))


Compose = Callable[[Sequence[str]], DictConfig]
Choices = Callable[[str], list[str]]


def group_choices(group: str, search: Sequence[Path]) -> list[str]:
    """The names of a group's YAMLs."""
    return sorted(path.stem for root in [conf_dir(), *search] for path in (root / group).glob("*.yaml"))


def _check_grid(
    typed: list[Override],
    grid: list[Override],
    multirun: bool,
    faults: list[str],
    compose: Compose,
    known: Choices,
) -> list[tuple[str, ...]]:
    """The faults of each override by itself; -> the words of the jobs that those without faults give."""

    def words_from(good: list[Override]) -> list[tuple[str, ...]]:
        return jobs_of(merged([o for o in typed if o in good], [o for o in grid if o in good]), known)

    both = [*grid, *typed]
    choices = [one for one in both if one.key_or_group in GROUPS]
    values = [one for one in both if one.key_or_group not in GROUPS]
    good = [one for one in choices if _keep(_choice_faults(one, multirun, known), faults)]
    inside = any(one.key_or_group.partition(".")[0] in NODES for one in values)  # some node, which is composed then
    nodes = _try(compose, next(iter(words_from(good)), ()), []) if inside else None
    good += [one for one in values if _keep(_value_faults(one, multirun, nodes, known), faults)]
    return words_from(good)


def _try(compose: Compose, words: Sequence[str], faults: list[str]) -> DictConfig | None:
    try:
        return compose(words)
    except ValueError as fault:
        faults.append(str(fault))
        return None


def _shared_folders(jobs: list[Job]) -> list[str]:
    """Different runs that would go to the same folder, or one sweep to several."""
    if len({job.cfg.hydra.sweep.dir for job in jobs}) > 1:
        return ["hydra.sweep.dir: one for all jobs is allowed; hydra.sweep.subdir names each job's own"]
    owner: dict[Path, str] = {}
    for one in jobs:
        if owner.setdefault(one.folder, one.signature) != one.signature:
            return [f"hydra.sweep.subdir: several jobs would write to {one.folder}"]
    return []


def _keep(new: list[str], faults: list[str]) -> bool:
    faults += new
    return not new


def _values(override: Override, multirun: bool, choices: Choices) -> tuple[list[Any], list[str]]:
    """The values that an override gives to its key, and what is wrong with giving several."""
    if override.is_sweep_override():
        if not multirun:
            return [], [f"{override.input_line}: several values are given; a sweep needs -m"]
        try:
            if not override.is_interval_sweep() and not words_of(override, choices):
                return [], [f"{override.input_line}: there is no such value"]
        except ValueError as fault:
            return [], [f"{override.input_line}: {fault}"]
        if isinstance(override.value(), Glob):
            return [], []  # Hydra finds the choices that it stands for
        if override.is_choice_sweep() or override.is_range_sweep():
            return list(override.sweep_iterator(transformer=lambda value: value)), []
        return [], []
    return [override.value()], []


def _choice_faults(override: Override, multirun: bool, choices: Choices) -> list[str]:
    group = override.key_or_group
    values, faults = _values(override, multirun, choices)
    known = choices(group)
    for value in values:
        if str(value) not in known:
            faults.append(_unknown(f"{group}={shown(value)}", str(value), known, f" (of {', '.join(known)})"))
    return faults


def _value_faults(override: Override, multirun: bool, nodes: DictConfig | None, choices: Choices) -> list[str]:
    name = override.key_or_group
    if name.partition(".")[0] == "hydra" or name.startswith("hydra/"):
        return []
    if override.is_delete():
        return [] if "." in name else [f"{override.input_line}: a key can be set, not taken out"]
    values, faults = _values(override, multirun, choices)
    given, _, _ = name.partition(".")
    if name in PLAIN:
        allowed: Range | None = PLAIN[name]
    elif given in NODES and "." in name:
        allowed = _node_range(name, nodes, override.is_add() or override.is_force_add(), faults)
    else:
        return [_unknown(override.input_line or name, name, [*PLAIN, *GROUPS], " (--help lists all)")]
    return faults + [fault for value in values if (fault := out_of_range(name, value, allowed))]


def _node_range(name: str, nodes: DictConfig | None, adding: bool, faults: list[str]) -> Range | None:
    """What a key inside a node may be: as tabulated, or of the type that stands in its YAML."""
    if name in NODE_RANGES:
        return NODE_RANGES[name]
    if nodes is None or name.endswith("._target_"):
        return None
    parent, _, last = name.rpartition(".")
    siblings = OmegaConf.select(nodes, parent)
    if adding and not (OmegaConf.is_dict(siblings) and last in list(siblings)):
        return None
    if not OmegaConf.is_dict(siblings) or last not in list(siblings):
        known = [f"{parent}.{key}" for key in siblings] if OmegaConf.is_dict(siblings) else []
        faults.append(_unknown(name, name, known, "; a key that is not in the YAML is added by +" + name))
        return None
    raw = OmegaConf.to_container(siblings, resolve=False)
    assert isinstance(raw, dict)
    if (key := str(raw[last])[2:-1]) in PLAIN and raw[last] == f"${{{key}}}":
        return PLAIN[key]  # the node takes it up from the plain key
    default = None if OmegaConf.is_missing(siblings, last) else siblings[last]
    if isinstance(default, (bool, int, float)):
        return Range(float if type(default) is int else type(default))
    return None


def _unknown(given: str, name: str, known: Sequence[str], hint: str = "") -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.0)
    nearest = f"; the nearest is {near[0]}" if near else ""
    return f"{given}: unknown{nearest}{hint}"
