"""The contract of a data set: a `Data` with up to three `Loader`s.

A loader gives one epoch by its number and may be entered at any batch. Nothing is carried from one epoch to the
next, so that a resumed run needs two integers, not the state of a generator or of a worker.

A batch is a number of examples. An example is an image, a window of a text, a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from typing_extensions import NotRequired, TypedDict

from .pixels import checked_statistics


class Loader(Protocol):
    """Batches of one part of a data set; `len(loader)` is the number of batches in an epoch."""

    examples: int  # in an epoch
    batch_size: int

    def __len__(self) -> int: ...

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs (B, ...) and targets (B, ...), both on the device.

        `epoch(e, first_batch=k)` yields, bit for bit, the batches of `epoch(e)` after the first k.
        """
        ...


class Data:
    """A data set, ready for training: `train` shuffles and augments, `val` and `test` go in order.

    model_arguments: passed to the model, as far as it accepts them ({"num_classes": 10, ...}).
    task_arguments: passed to the task likewise.
    input: how an input is made, in JSON's types; stored with the network for its users ({"shape": [8], ...}).
    facts: about the data, for the record of a run, in JSON's types ({"classes": 10}).
    unit: the name of the examples, in the plural ("images").
    digest: {"train", "val", "test"}: what the examples are, by digest.py; {} where that is not known.
    """

    def __init__(
        self,
        name: str,
        *,
        train: Loader,
        val: Loader | None,  # None: nothing was held out
        test: Loader,
        model_arguments: Mapping[str, object] | None = None,
        task_arguments: Mapping[str, object] | None = None,
        input: Mapping[str, object] | None = None,
        facts: Mapping[str, Any] | None = None,
        unit: str = "examples",
        digest: Mapping[str, str] | None = None,
    ) -> None:
        self.digest = dict(digest or {})
        self.name, self.train, self.val, self.test, self.unit = name, train, val, test, unit
        self.model_arguments, self.task_arguments = dict(model_arguments or {}), dict(task_arguments or {})
        self.input, self.facts = dict(input or {}), dict(facts or {})

    def replace_loaders(self, made_from: Callable[[Loader], Loader]) -> None:
        """Put another loader in the place of each."""
        self.train, self.test = made_from(self.train), made_from(self.test)
        self.val = made_from(self.val) if self.val is not None else None


class ImageData(Data):
    """Images (B, C, H, W) float32, normalised, and classes (B,) int64.

    classes: target k is classes[k].  shape: (C, H, W) of the model's input.
    mean, std: per channel, of pixels scaled to 0..1; an input is (pixel / 255 - mean) / std.
    """

    def __init__(
        self,
        name: str,
        *,
        classes: Sequence[str],
        shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        train: Loader,
        test: Loader,
        val: Loader | None = None,
        digest: Mapping[str, str] | None = None,
    ) -> None:
        self.classes, self.shape = list(classes), shape
        self.mean, self.std = tuple(mean), tuple(std)
        super().__init__(
            name, train=train, val=val, test=test, unit="images", digest=digest,
            model_arguments={"num_classes": len(classes), "in_channels": shape[0], "image_size": shape[1]},
            input={"shape": list(shape), "mean": list(mean), "std": list(std), "classes": list(classes)},
            facts={"classes": len(classes)},
        )  # fmt: skip

    def set_classes(self, classes: Sequence[str]) -> None:
        """Name the targets anew, as many classes as there are names; the loaders are the caller's business."""
        self.classes = list(classes)
        self.model_arguments["num_classes"] = self.facts["classes"] = len(classes)
        self.input["classes"] = list(classes)

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise by other statistics. Raises: ValueError unless each has a number for every channel."""
        self.mean, self.std = checked_statistics(mean, std, self.shape[0])
        self.input |= {"mean": list(self.mean), "std": list(self.std)}
        for loader in (self.train, self.val, self.test):
            if loader is None:
                continue
            if not hasattr(loader, "normalise_by"):
                raise ValueError(f"{type(loader).__name__} has no normalise_by(mean, std) to follow a network with")
            loader.normalise_by(self.mean, self.std)


class Loading(TypedDict):
    """The keys that every source of images takes and hands on to `from_tensors` or `from_datasets`."""

    device: torch.device | str
    batch_size: int
    seed: int
    val_fraction: float  # of the training part, held out; 0 for none
    num_workers: NotRequired[int]
    flip: NotRequired[bool]
