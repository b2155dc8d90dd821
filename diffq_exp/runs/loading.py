"""Weights and networks out of what runs leave: stored models, checkpoints, run folders.

What a stored model says of its network is in `stored_config`; rebuild.py makes the network from it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import hydra.utils
from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import storage
from ..command.network_files import network_files
from ..common.printable import one_line
from ..data import Data
from ..results.records import is_run, known_record, read_record, status_of
from ..results.run_files import CHECKPOINT, MODEL
from ..stored.floats import is_folded
from .build import accepted
from .fitting import LEAST, fit
from .rebuild import build_stored_model
from .state_files import is_stored_here, read_states

log = logging.getLogger("diffq_exp")
GROUPS = ("model", "dataset", "task")


def stored_config(cfg: DictConfig, choices: dict[str, str], data: Data, model: nn.Module) -> dict[str, Any]:
    """What a stored model says of itself: how to build it, what it was trained for, how its input is made."""
    config: dict[str, Any] = {group: _described(cfg, group, choices) for group in (*GROUPS, "quantizer")}
    config["model"]["keys"] = accepted(hydra.utils.get_method(cfg.model._target_), data.model_arguments)
    config["model"]["keys"] |= getattr(model, "rebuilt_by", {})  # in place of a folder or hub that it came from
    config["input"] = dict(data.input)
    config["batch_size"] = cfg.batch_size
    return config


def _described(cfg: DictConfig, group: str, choices: dict[str, str]) -> dict[str, object]:
    return {"name": choices[group], "node": OmegaConf.to_container(cfg[group], resolve=True)}


def stored_file(source: Path | str) -> Path:
    """The stored model of a run folder, or the file itself. Raises: ValueError when there is none."""
    path = Path(source)
    if path.is_dir():
        path = path / MODEL
        if not path.is_file():
            status = status_of(path.parent, known_record(path.parent))
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
        raise ValueError(f"{path}: {one_line(error)}") from error


def _stored_whole(folder: Path) -> bool:
    """Whether the file of a run has its float32 network as it is."""
    record = read_record(folder)
    options = record.config.get("storage", {})
    whole = options.get("float", "float32") == "float32" and not options.get("fold")
    return record.choices.get("quantizer") == "none" and whole


def load_weights(model: nn.Module, source: Path, strict: bool = False) -> None:
    """Start a float network from a run folder, a checkpoint, a stored model, or a state_dict of anybody's.

    Of a folder of a run: the network of a float32 run as it was measured; else the last float weights, if they are
    there. Tensors that do not fit, a new head say, keep their values, and are told. strict: they are refused.
    Raises: ValueError naming what does not fit, the model is then untouched; or for folded batch norms.
    """
    path = _file_of(source)
    own = is_stored_here(path)
    states = {"": storage.read(path)[0].values()} if own else read_states(path)
    wanted = model.state_dict()
    fits = {place: fit(wanted, state) for place, state in states.items()}
    place = max(fits, key=lambda place: len(fits[place].taken))  # of equal ones the first, which is the usual one
    best = fits[place]
    for first, other in best.twice:
        raise ValueError(f"{path}: {first!r} and {other!r} are one tensor with different values; leave one out")
    differences = best.differences()
    if differences and (strict or best.share < LEAST):
        why = "" if strict else f": only {best.summary()}"
        raise ValueError(f"{path}{why}: {'; '.join(differences)}")
    log.info(f"{path}: {best.summary()}{f', out of its {place!r}' if place else ''}")
    for text in differences:
        log.warning(f"{path}: {text}")
    model.load_state_dict({name: states[place][there] for name, there in best.taken.items()}, strict=False)
    if own and is_folded(model):
        raise ValueError(f"{path}: its batch norms are folded, so that it cannot be trained; see storage.fold")


def _file_of(source: Path) -> Path:
    """The file, or folder of files, that weights are in.

    Of a folder that is no run's: what the signature of a run that begins from it has hashed, and nothing else.
    """
    if not source.is_dir():
        return source
    if not is_run(source):
        files = network_files(source)
        return files[0] if len(files) == 1 else source
    trained = source / CHECKPOINT
    return trained if trained.is_file() and not _stored_whole(source) else stored_file(source)
