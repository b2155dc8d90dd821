"""Weights and networks out of what runs leave: stored models, checkpoints, run folders.

A stored model says which network it is by the group and name of a YAML file in conf/, with its arguments. Building
it calls only what conf/ itself names under that name; anything else has to be allowed by the caller, by its full
dotted name. So a file from a stranger cannot choose what code runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import storage
from ..command.schema import conf_dir
from ..data import Data
from ..results.records import read_record, status_of
from ..results.renamed import new_name
from ..results.run_files import CHECKPOINT, MODEL
from ..stored.floats import is_folded
from ..stored.network import StoredModel, check_fit, write_into
from ..training.checkpoint import load_checkpoint
from .build import accepted

GROUPS = ("model", "dataset", "task")


def stored_config(cfg: DictConfig, choices: dict[str, str], data: Data, model: nn.Module) -> dict[str, Any]:
    """What a stored model says of itself: how to build it, what it was trained for, how its input is made."""
    config: dict[str, Any] = {group: _described(cfg, group, choices) for group in (*GROUPS, "quantizer")}
    config["model"]["keys"] = accepted(hydra.utils.get_method(cfg.model._target_), data.model_arguments)
    config["model"]["keys"] |= getattr(model, "rebuilt_by", {})  # in place of a folder or hub that it came from
    config["input"] = dict(data.input)
    config["batch_size"] = cfg.batch_size
    return config


def _described(cfg: DictConfig, group: str, choices: dict[str, str]) -> dict[str, Any]:
    return {"name": choices[group], "node": OmegaConf.to_container(cfg[group], resolve=True)}


def stored_file(source: Path | str) -> Path:
    """The stored model of a run folder, or the file itself. Raises: ValueError when there is none."""
    path = Path(source)
    if path.is_dir():
        path = path / MODEL
        if not path.is_file():
            status = status_of(path.parent)
            raise ValueError(
                f"{source}: the run has no {MODEL}" + (f"; its status is {status!r}" if status else "")
            )
    if not path.is_file():
        raise ValueError(f"{source}: no such run folder or file")
    return path


def load_model(source: Path | str, allow: Collection[str] = ()) -> nn.Module:
    """The stored network of a run folder or file, in eval mode, on the CPU.

    allow: full dotted names of classes and functions that may build it besides those of conf/.
    `config["input"]` of `storage.read(file)` says how its input is made: images are (x / 255 - mean) / std, texts
    int64 tokens (batch, length).
    Raises: ValueError naming what is wrong with the file, or what it asks for that is not allowed.
    """
    path = stored_file(source)
    stored, config = storage.read(path)
    try:
        return build_stored_model(stored, config, allow)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def build_stored_model(stored: StoredModel, config: dict[str, Any], allow: Collection[str] = ()) -> nn.Module:
    """A network made as `config` says, with the weights of `stored`."""
    _check_sketch(stored, config, allow)
    model = build_stored(config, "model", allow)
    if not isinstance(model, nn.Module):
        raise ValueError(f"its config builds a {type(model).__name__}, not an nn.Module")
    write_into(model, stored)
    return model.eval()


def _check_sketch(stored: StoredModel, config: dict[str, Any], allow: Collection[str]) -> None:
    """See that the network that `config` describes has the tensors stored, before any memory goes to it."""
    try:
        with torch.device("meta"):
            sketch = build_stored(config, "model", allow)
    except (ValueError, NotImplementedError):
        return  # not every network can be made without memory; one that cannot be made at all fails for real
    if isinstance(sketch, nn.Module):
        check_fit(sketch.state_dict(), stored.shapes())


def build_stored(config: dict[str, Any], group: str, allow: Collection[str], **runtime: Any) -> Any:
    """Build what a stored config describes under `group`. Raises: ValueError when it is not allowed, or fails."""
    try:
        description = config[group]
        name, node, keys = description["name"], dict(description["node"]), dict(description.get("keys", {}))
        target = new_name(node.pop("_target_"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its config does not describe a {group}") from error
    if target != _target_in_conf(group, name) and target not in allow:
        raise ValueError(f"its {group} is {target!r}, which conf/ does not name; allow it by --allow {target}")
    arguments = {**node, **keys}
    if "pretrained" in arguments:
        arguments["pretrained"] = False  # the weights come from the file, nothing is fetched
    try:
        call = _located(target)
        plain = {key: _built_inside(value, allow) for key, value in arguments.items()}
        return call(**plain, **accepted(call, runtime))
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"its {group} cannot be built by {target}: {error}") from error


def _target_in_conf(group: str, name: Any) -> str | None:
    path = conf_dir() / group / f"{name}.yaml"
    if not str(name).isidentifier() or not path.is_file():
        return None
    return str(OmegaConf.select(OmegaConf.load(path), "_target_"))


def _located(target: Any) -> Any:
    module, _, attribute = str(target).rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _built_inside(value: Any, allow: Collection[str]) -> Any:
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
        raise ValueError(f"an argument names {target!r} to be called; allow it by --allow {target}")
    return _located(target)(**values)


def _stored_whole(folder: Path) -> bool:
    """Whether the file of a run has its float32 network as it is."""
    record = read_record(folder)
    options = record.config.get("storage", {})
    whole = options.get("float", "float32") == "float32" and not options.get("fold")
    return record.choices.get("quantizer") == "none" and whole


def load_weights(model: nn.Module, source: Path) -> None:
    """Start a float network from a run folder, a checkpoint or a stored model.

    Of a folder: the network of a float32 run as it was measured; else the last float weights, if they are there.
    Raises: ValueError naming what does not fit, the model is then untouched; or for folded batch norms.
    """
    path = source
    if source.is_dir():
        trained = source / CHECKPOINT
        path = trained if trained.is_file() and not _stored_whole(source) else stored_file(source)
    if path.suffix != ".pt":
        storage.load(path, model)
        if is_folded(model):
            raise ValueError(f"{path}: its batch norms are folded, so that it cannot be trained; see storage.fold")
        return
    state = (load_checkpoint(path) or {}).get("model", {})
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise ValueError(f"{path}: it lacks {name!r}, which the network has")
        if state[name].shape != tensor.shape:
            shapes = f"{tuple(state[name].shape)}, the network has {tuple(tensor.shape)}"
            raise ValueError(f"{path}: {name!r} has shape {shapes}")
    unknown = [name for name in state if not any(name == known or name.startswith(f"{known}_") for known in wanted)]
    if unknown:
        raise ValueError(f"{path}: the network has no {unknown[0]!r}")
    with torch.no_grad():
        model.load_state_dict({name: state[name] for name in wanted})
