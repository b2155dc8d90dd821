"""Weights and networks out of what runs leave: stored models, checkpoints, run folders.

What a stored model says of its network is in `stored_config`; rebuild.py makes the network from it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import storage
from ..data import Data
from ..results.records import read_record, status_of
from ..results.run_files import CHECKPOINT, MODEL
from ..stored.floats import is_folded
from ..training.checkpoint import load_checkpoint
from .build import accepted
from .rebuild import build_stored_model

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
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


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
