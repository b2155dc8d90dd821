"""The errors of an override by itself: its key, its value, and whether it may have several values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from hydra.core.override_parser.types import Glob, Override
from omegaconf import MISSING, DictConfig, OmegaConf

from ..common.names import nearest
from .choices import is_shipped, shipped
from .overrides import Choices, single_overrides, text_of
from .ranges import NODE_RANGES, Range, shown
from .schema import GROUPS, NODES, PLAIN

KEPT = "a key can be set, but not removed"


def choice_errors(override: Override, multirun: bool, choices: Choices) -> list[str]:
    """The errors of an override that chooses a YAML file of a group."""
    group = override.key_or_group
    values, errors = _values(override, multirun, choices)
    known = choices(group)
    for value in values:
        if str(value) not in known:
            errors.append(_unknown(f"{group}={shown(value)}", str(value), known, f" (of {', '.join(known)})"))
    return errors


def value_errors(override: Override, multirun: bool, nodes: DictConfig | None, choices: Choices) -> list[str]:
    """The errors of an override that sets a key. nodes: a configuration with the chosen YAML files."""
    name = override.key_or_group
    if name == "hydra":
        return [f"{text_of(override)}: Hydra's own keys are set one by one, by hydra.key=value"]
    if override.is_hydra_override():
        return []
    if override.is_delete():
        return [] if "." in name else [f"{text_of(override)}: {KEPT}"]
    values, errors = _values(override, multirun, choices)
    if name in PLAIN:
        allowed: Range | None = PLAIN[name]
    elif name.partition(".")[0] in NODES and "." in name:
        allowed = _node_range(name, nodes, override.is_add() or override.is_force_add(), errors)
    else:
        return [_unknown(text_of(override) or name, name, [*PLAIN, *GROUPS], " (--help lists all)")]
    return errors + [error for value in values if (error := range_error(name, value, allowed))]


def _values(override: Override, multirun: bool, choices: Choices) -> tuple[list[object], list[str]]:
    """The values that an override gives to its key, as far as they can be listed; and the errors of a sweep."""
    if not override.is_sweep_override():
        return [override.value()], []
    text = text_of(override)
    if not multirun:
        return [], [f"{text}: several values are given; a sweep needs -m"]
    if not override.is_interval_sweep() and not single_overrides(override, choices):
        return [], [f"{text}: there is no such value"]
    if isinstance(override.value(), Glob):
        return [], []  # of a group's files, and so right
    if override.is_choice_sweep() or override.is_range_sweep():
        return list(override.sweep_iterator(transformer=Override._convert_value)), []
    return [], []


def _node_range(name: str, nodes: DictConfig | None, adding: bool, errors: list[str]) -> Range | None:
    """The range of a key of a node: from the table, or from the value in its YAML file. None: anything."""
    if name in NODE_RANGES:
        return NODE_RANGES[name]
    if nodes is None or name.endswith("._target_"):
        return None
    parent, _, last = name.rpartition(".")
    siblings = OmegaConf.select(nodes, parent)
    if not OmegaConf.is_dict(siblings) or last not in list(siblings):
        if not adding:
            known = [f"{parent}.{key}" for key in siblings] if OmegaConf.is_dict(siblings) else []
            errors.append(_unknown(name, name, known, "; a key that is not in the YAML is added by +" + name))
        return None
    raw = OmegaConf.to_container(siblings, resolve=False)
    assert isinstance(raw, dict)
    return range_of(name, raw[last])


def range_of(name: str, default: object) -> Range | None:
    """The range of a key of a node whose YAML file has this default, as it is written there. None: anything."""
    if name in NODE_RANGES:
        return NODE_RANGES[name]
    if default == "???":
        return Range()
    if (key := str(default)[2:-1]) in PLAIN and default == f"${{{key}}}":
        return PLAIN[key]  # the node gets it from the plain key
    kind = type(default)
    return Range(float if kind is int else kind) if kind in (bool, int, float, list, dict) else None


def range_error(name: str, value: object, allowed: Range | None) -> str | None:
    """What is wrong with a value that is not allowed; an interpolation is judged once it is resolved."""
    if allowed is None or (isinstance(value, str) and value.startswith("${")) or allowed.allows(value):
        return None
    return f"{name}={shown(value)}: {allowed.text} is allowed"


def range_errors(values: Mapping[str, tuple[object, Range | None]]) -> list[str]:
    """The errors of keys, each with its value and its range."""
    errors = [range_error(name, value, allowed) for name, (value, allowed) in values.items()]
    return [error for error in errors if error]


def values_of_nodes(cfg: DictConfig) -> Iterator[tuple[str, tuple[object, Range | None]]]:
    """The keys of our YAML files: the value that each has now, by an experiment say, and what it may be."""
    for group in NODES:
        choice = cfg.hydra.runtime.choices[group]
        if is_shipped(group, choice, cfg[group].get("_target_")):
            values = OmegaConf.to_container(cfg[group], resolve=True)
            yield from _values_of(group, cast(dict[str, Any], values), shipped(group, choice))


def _values_of(
    name: str, node: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[object, Range | None]]]:
    for key, default in defaults.items():
        if (value := node.get(key, MISSING)) == MISSING:
            continue
        yield f"{name}.{key}", (value, range_of(f"{name}.{key}", default))
        if isinstance(default, dict) and isinstance(value, dict):
            yield from _values_of(f"{name}.{key}", value, default)


def plain(value: object) -> Any:
    """A value of a configuration as Python's own type."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _unknown(given: str, name: str, known: Sequence[str], hint: str = "") -> str:
    near = nearest(name, known)
    return f"{given}: unknown{f'; the nearest is {near[0]}' if near else ''}{hint}"
