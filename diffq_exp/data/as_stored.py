"""A data set as a stored network takes it: the statistics, the classes and the vocabulary that it was trained with.

They stand under "input" of its stored configuration. The data set of today may have others: images that came since
change a measured mean, and a folder that was renamed changes which number a class has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Data, ImageData, Loader

STATISTICS = ("mean", "std")


def differences(data: Data, described: Mapping[str, object]) -> dict[str, str]:
    """{key: a clause} for each entry that the input of a network and that of `data` both have, and that differs."""
    ours = json.loads(json.dumps(data.input))  # as it reads in a file: lists for tuples
    return {
        key: _classes_differ(ours[key], described[key])
        if key == "classes"
        else f"the network was trained with {key} {described[key]}, the data set has {ours[key]}"
        for key in ours
        if key in described and ours[key] != described[key]
    }


def follow(data: Data, described: Mapping[str, Any]) -> list[str]:
    """Prepare `data`, in place, as the inputs of a network were; -> clauses on what differs all the same.

    Images are normalised by the network's mean and deviation, and a class gets the number that the network has for
    its name. Raises: ValueError where the data set has a class that the network has not, or another vocabulary.
    """
    found = differences(data, described)
    if others := [text for key, text in found.items() if key not in (*STATISTICS, "shape", "classes")]:
        raise ValueError(others[0])
    if found.keys() & {*STATISTICS}:
        _normalise_as(data, described)
    if "classes" in found:
        _number_as(data, described["classes"], found["classes"])
    return [found[key] for key in ("shape", "classes") if key in found]


def places(data: Data, described: Mapping[str, object]) -> list[int] | None:
    """Where the network's outputs have the classes of `data`, None where each is in its place, or has no name.

    Raises: ValueError where the data set has a class that the network has not.
    """
    theirs = described.get("classes")
    if not isinstance(data, ImageData) or theirs is None or theirs == data.classes:
        return None
    known = (
        {name: at for at, name in enumerate(theirs) if isinstance(name, str)} if isinstance(theirs, list) else {}
    )
    if not {*data.classes} <= known.keys():
        raise ValueError(_classes_differ(data.classes, theirs))
    return [known[name] for name in data.classes]


def _number_as(data: Data, classes: Sequence[str], clause: str) -> None:
    numbers = places(data, {"classes": classes})
    if not isinstance(data, ImageData) or numbers is None:
        raise ValueError(clause)
    data.set_classes(classes)
    data.replace_loaders(lambda loader: _Numbered(loader, torch.tensor(numbers)))


def _normalise_as(data: Data, described: Mapping[str, Any]) -> None:
    if not isinstance(data, ImageData):
        raise ValueError("; ".join(differences(data, described)[key] for key in STATISTICS))
    try:
        data.normalise_by(*(described[key] for key in STATISTICS))
    except (KeyError, TypeError) as error:
        raise ValueError("its config has no mean and deviation of each channel") from error


def _classes_differ(ours: Sequence[str], theirs: object) -> str:
    if not isinstance(theirs, list):
        return f"the network's classes are {theirs!r}, no list"
    network, data_set = {str(name) for name in theirs}, {*ours}
    lone = {"network": sorted(network - data_set), "data set": sorted(data_set - network)}
    parts = [f"only the {who} has {names[:5]}" for who, names in lone.items() if names]
    return "the classes differ: " + ("; ".join(parts) or "the same names in another order")


class _Numbered:
    """A loader whose target k becomes numbers[k]."""

    def __init__(self, loader: Loader, numbers: Tensor) -> None:
        self._loader, self._numbers = loader, numbers
        self.examples, self.batch_size = loader.examples, loader.batch_size

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, targets in self._loader.epoch(epoch, first_batch):
            yield inputs, self._numbers.to(targets.device)[targets]
