"""What a stored model describes, built again: its network, its data set, its task.

A stored model names a YAML file in conf/ by its group and name, with arguments. Building it calls only what conf/
itself names under that name; anything else has to be allowed by the caller, by its full dotted name. So a file from
a stranger cannot choose what code runs, nor how much memory a network takes (allowance.py).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from torch import nn

from ..command.schema import conf_dir
from ..models.rebuilding import rebuilding
from ..results.renamed import new_name
from ..stored.network import StoredModel, write_into
from .allowance import Allowance, TooLarge, check_depth
from .build import accepted


def build_stored_model(stored: StoredModel, config: dict[str, Any], allow: Collection[str] = ()) -> nn.Module:
    """A network made as `config` says, with the weights of `stored`, in eval mode."""
    build, shapes = _imported(config, "model", allow), stored.shapes()
    check_depth(config["model"], len(shapes))
    with rebuilding(), Allowance(shapes), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of first weights, which those of the file replace
        model = build()
    if not isinstance(model, nn.Module):
        raise ValueError(f"its config builds a {type(model).__name__}, not an nn.Module")
    write_into(model, stored)
    return model.eval()


def build_stored(config: dict[str, Any], group: str, allow: Collection[str], **runtime: object) -> Any:
    """Build what a stored config describes under `group`. Raises: ValueError when it is not allowed, or fails."""
    return _imported(config, group, allow)(**runtime)


def _imported(config: dict[str, Any], group: str, allow: Collection[str]) -> Callable[..., Any]:
    """A function that builds it, whose module is imported. Raises: ValueError as `build_stored`."""
    try:
        description = config[group]
        name, node, keys = description["name"], dict(description["node"]), dict(description.get("keys", {}))
        target = new_name(node.pop("_target_"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its config does not describe a {group}") from error
    if target != _target_in_conf(group, name) and target not in allow:
        raise ValueError(f"its {group} is {target!r}, which conf/ does not name; {_how_to_allow(target)}")
    arguments = {**node, **keys}
    if "pretrained" in arguments:
        arguments["pretrained"] = False  # the weights come from the file, nothing is fetched
    with _failing(group, target):
        call = _located(target)

    def build(**runtime: object) -> Any:
        with _failing(group, target):
            plain = {key: _built_inside(value, allow) for key, value in arguments.items()}
            return call(**plain, **accepted(call, runtime))

    return build


def _how_to_allow(target: str) -> str:
    return f"allow it by --allow {target}, or in Python by allow=[{target!r}]"


@contextmanager
def _failing(group: str, target: str) -> Iterator[None]:
    """Any exception as a ValueError: whatever the arguments are, and whoever wrote what they are given to."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, (ValueError, TooLarge)) else f"{type(error).__name__}: {error}"
        raise ValueError(f"its {group} cannot be built by {target}: {reason}") from error


def _target_in_conf(group: str, name: object) -> str | None:
    paths = {path.stem: path for path in (conf_dir() / group).glob("*.yaml")}
    if not isinstance(name, str) or name not in paths:
        return None
    return str(OmegaConf.select(OmegaConf.load(paths[name]), "_target_"))


def _located(target: object) -> Any:
    module, _, attribute = str(target).rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _built_inside(value: object, allow: Collection[str]) -> Any:
    """An argument; where it is an object to be built itself, its target must be allowed."""
    if isinstance(value, list):
        return [_built_inside(item, allow) for item in value]
    if not isinstance(value, dict):
        return value
    values = {key: _built_inside(item, allow) for key, item in value.items()}
    if "_target_" not in values:
        return values
    target = values.pop("_target_")
    if target not in allow:
        raise ValueError(f"an argument names {target!r} to be called; {_how_to_allow(target)}")
    return _located(target)(**values)
