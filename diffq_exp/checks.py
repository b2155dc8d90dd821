"""All faults of a command line at once, before anything is written or loaded.

Hydra stops at the first fault, after it has made the run's folder. So the same words are parsed here first, with
Hydra's own grammar and composition: each override by itself against the schema, then what they give together.
A fault is one line: the key, what was given, what is allowed, and the nearest name of an unknown key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice, product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .config import GROUPS, NODE_RANGES, NODES, PLAIN, Range, conf_dir, register, shown
from .signature import register_resolver
from .together import out_of_range, together, unused_warnings

TOGETHER = (*GROUPS, "min_bits", "init_bits", "max_bits", "bits", "init_from", "device")  # see together()
MOST_JOBS = 64  # of a sweep, tried together beforehand: each takes some 50 ms


@dataclass
class Checked:
    """What the check of a command line found."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(argv: Sequence[str]) -> Checked:
    """Check the words after `python -m diffq_exp.train`; nothing is written."""
    args = get_args_parser().parse_intermixed_args(list(argv))
    search = [Path(args.config_dir).resolve()] if args.config_dir else []
    found = Checked([f"--config-dir {path}: no such folder" for path in search if not path.is_dir()])
    if found.faults:
        return found
    parsed = list(_parse(args.overrides, found.faults))
    choices = [one for one in parsed if one.key_or_group in GROUPS]
    values = [one for one in parsed if one.key_or_group not in GROUPS]
    good = [one for one in choices if _keep(_choice_faults(one, args.multirun, search), found.faults)]
    name = args.config_name or "config"
    nodes = _compose(name, next(_jobs(good)), search, [])
    good += [one for one in values if _keep(_value_faults(one, args.multirun, nodes), found.faults)]
    for words in _jobs(good):
        faults: list[str] = []
        cfg = _compose(name, words, search, faults)
        if cfg is not None:
            faults += together(cfg)
            found.warnings += [line for line in unused_warnings(cfg, values) if line not in found.warnings]
        found.faults += [fault for fault in faults if fault not in found.faults]
    return found


def _parse(words: Sequence[str], faults: list[str]) -> Iterator[Override]:
    parser = OverridesParser.create()
    for word in words:
        try:
            yield parser.parse_override(word)
        except (HydraException, ValueError):
            faults.append(f"{word!r}: not understood; a key is set by key=value")


def _keep(new: list[str], faults: list[str]) -> bool:
    faults += new
    return not new


def _values(override: Override, multirun: bool) -> tuple[list[Any], list[str]]:
    """The values that an override gives to its key, and what is wrong with giving several."""
    if override.is_sweep_override():
        if not multirun:
            return [], [f"{override.input_line}: several values are given; a sweep needs -m"]
        if isinstance(override.value(), Glob):
            return [], []  # Hydra finds the choices that it stands for
        if override.is_choice_sweep() or override.is_range_sweep():
            return list(override.sweep_iterator(transformer=lambda value: value)), []
        return [], []
    return [override.value()], []


def _choice_faults(override: Override, multirun: bool, search: list[Path]) -> list[str]:
    group = override.key_or_group
    values, faults = _values(override, multirun)
    known = sorted(path.stem for root in [conf_dir(), *search] for path in (root / group).glob("*.yaml"))
    for value in values:
        if str(value) not in known:
            faults.append(_unknown(f"{group}={shown(value)}", str(value), known, f" (of {', '.join(known)})"))
    return faults


def _value_faults(override: Override, multirun: bool, nodes: DictConfig | None) -> list[str]:
    name = override.key_or_group
    if name.partition(".")[0] == "hydra" or name.startswith("hydra/"):
        return []
    if override.is_delete():
        return [] if "." in name else [f"{override.input_line}: a key can be set, not taken out"]
    values, faults = _values(override, multirun)
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


def _jobs(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The words of every job that can differ in what its values give together.

    Of a swept key whose values cannot clash with another's, the first stands for all.
    """
    options = []
    for one in overrides:
        if not one.is_sweep_override():
            options.append([one.input_line or ""])
        elif not isinstance(one.value(), Glob) and (one.is_choice_sweep() or one.is_range_sweep()):
            words = [f"{one.key_or_group}={value}" for value in one.sweep_string_iterator()]
            options.append(words if one.key_or_group in TOGETHER else words[:1])
    return (list(words) for words in islice(product(*options), MOST_JOBS))


def _compose(config_name: str, words: list[str], search: list[Path], faults: list[str]) -> DictConfig | None:
    """What the words of one job give together; None, and a fault, where they do not."""
    register()
    register_resolver()
    if search:
        words = [*words, "hydra.searchpath=[" + ",".join(f"file://{path}" for path in search) + "]"]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose(config_name, words, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as fault:
        faults.append(" ".join(str(fault).split()))
        return None
