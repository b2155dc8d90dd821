"""The networks that a run begins from or follows: what they were trained on, beside the data of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ..command.consumption import only_afterwards
from ..common.files import user_path
from ..data import Data, ImageData
from ..data.as_stored import STATISTICS, differences, follow, places
from ..data.pixels import checked_statistics
from ..results.run_files import CHECKPOINT, MODEL
from ..storage.read import open_stored
from ..training.distillation import Translated
from .state_files import is_stored_here

log = logging.getLogger("diffq_exp")
NEAR = 0.01  # of a deviation: statistics of two draws of the same images differ by less


def trained_on(source: Path) -> dict[str, object]:
    """How the inputs of a stored network were made, {} where that is not known. Raises: ValueError; OSError."""
    path = source / MODEL if source.is_dir() else source.parent / MODEL if source.name == CHECKPOINT else source
    described = open_stored(path).contents.config.get("input", {}) if is_stored_here(path) else {}
    return described if isinstance(described, dict) else {}


def match_start(cfg: DictConfig, data: Data) -> None:
    """Compare `data` with those of the network that a run begins from, and warn of what differs.

    A run that only quantizes its network takes its statistics and its numbers of the classes.
    Raises: ValueError where the data are of no use to such a network.
    """
    if cfg.init_from is None:
        return
    source = user_path(cfg.init_from)
    described = trained_on(source)
    try:
        told = follow(data, described) if only_afterwards(cfg) else _worth_telling(data, described)
    except ValueError as error:
        raise ValueError(f"init_from={source}: {error}") from error
    for line in told:
        log.warning(f"init_from={source}: {line}")


def _worth_telling(data: Data, described: Mapping[str, object]) -> list[str]:
    found = differences(data, described)
    found.pop("shape", None)  # a network that takes another size is trained on that
    if found.keys() & {*STATISTICS} and (translation := _affine(data, described)) is not None:
        scale, shift = translation
        if float((scale - 1).abs().max()) < NEAR and float(shift.abs().max()) < NEAR:
            found = {key: text for key, text in found.items() if key not in STATISTICS}
    return list(found.values())


def as_teacher(model: nn.Module, data: Data, source: Path) -> nn.Module:
    """A network that takes the inputs of `data`, and whose outputs are in the order of the classes of `data`.

    Raises: ValueError where the network lacks a class, or knows another vocabulary.
    """
    described = trained_on(source)
    found = differences(data, described)
    try:
        order = places(data, described) if "classes" in found else None
        if others := [found[key] for key in found if key not in (*STATISTICS, "shape", "classes")]:
            raise ValueError(others[0])
        affine = _affine(data, described) if found.keys() & {*STATISTICS} else None
    except ValueError as error:
        raise ValueError(f"teacher={source}: {error}") from error
    return model if affine is None and order is None else Translated(model, affine, order)


def _affine(data: Data, described: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """scale and shift (C, 1, 1) from an input of the data to that of the network; None for other than images."""
    if not isinstance(data, ImageData):
        return None
    ours, theirs = (
        torch.tensor([list(mean), list(std)], dtype=torch.float64)[..., None, None]
        for mean, std in (
            (data.mean, data.std),
            checked_statistics(described.get("mean", ()), described.get("std", ()), len(data.mean)),
        )
    )  # (2, C, 1, 1) each
    return (ours[1] / theirs[1]).float(), ((ours[0] - theirs[0]) / theirs[1]).float()
