"""What values a key may have, and how that is said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")  # of runs
PATHS = (  # keys whose values are paths of the user's
    "init_from",
    "teacher",
    "dataset.root",
    "dataset.path",
    "dataset.download_root",
    "dataset.cache_dir",
    "dataset.train",
    "dataset.val",
    "dataset.test",
    *FOLDERS,
)
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    list[str]: "a list of texts",
    dict: "a mapping",
    object: "a value",
}


@dataclass(frozen=True)
class Range:
    """Values that a key may take; `text` says it to the user."""

    kind: type = object
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False
    or_target: bool = False  # or an object of the user's own, {_target_: package.Class, ...}

    @property
    def text(self) -> str:
        if self.choices:
            return (
                "one of " + ", ".join(self.choices) + (", or {_target_: package.Class}" if self.or_target else "")
            )
        bounds = {">=": self.low, ">": self.above, "<=": self.high, "<": self.below}
        limits = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
        text = " ".join(part for part in (KINDS[self.kind], limits) if part)
        return text + (" or null" if self.optional else "")

    def allows(self, value: Any) -> bool:
        """Whether a parsed value is of the kind and inside the bounds."""
        if value is None:
            return self.optional
        if self.or_target and isinstance(value, dict):
            return isinstance(value.get("_target_"), str)
        if self.choices:
            return value in self.choices
        if self.kind in (int, float):
            return _is_number(value, self.kind) and self._inside(value)
        if self.kind is str:
            return _is_text(value)
        if self.kind == list[str]:
            return isinstance(value, list) and all(map(_is_text, value))
        return isinstance(value, self.kind)

    def _inside(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )


def _is_number(value: object, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) if kind is int else math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


def shown(value: object) -> str:
    """A value as the user types it."""
    texts = {True: "true", False: "false", None: "null"}
    return texts[value] if value is None or isinstance(value, bool) else str(value)


# Ranges of keys inside nodes that have more than the type of their default.
NODE_RANGES: dict[str, Range] = {
    "dataset.root": Range(str),
    "dataset.path": Range(str),
    "dataset.download_root": Range(str),
    "dataset.cache_dir": Range(str, optional=True),
    "dataset.train": Range(str),
    "dataset.val": Range(str, optional=True),
    "dataset.test": Range(str),
    "optimizer.momentum": Range(float, low=0, below=1),
    "optimizer.weight_decay": Range(float, low=0),
    "scheduler.warmup_epochs": Range(float, low=0),
    "scheduler.every": Range(int, low=1),
    "scheduler.decay": Range(float, above=0),
    "scheduler.final": Range(float, low=0, high=1),
    "scheduler.peak_at": Range(float, above=0, below=1),
    "quantizer.extra_bits": Range(float, low=0),
    "quantizer.step": Range(float, above=0),
    "quantizer.round_from": Range(float, low=0, high=1),
    "quantizer.least_dims": Range(int, low=0, high=4),
    "quantizer.ranges": Range(str, choices=("minmax", "mse")),
    "quantizer.noise": Range(str, choices=("gaussian", "uniform", "none"), or_target=True),
    "penalty_schedule.start": Range(float, low=0, below=1),
    "penalty_schedule.end": Range(float, above=0, high=1),
    "dataset.train_images": Range(int, low=1),
    "dataset.length": Range(int, low=1),
    "dataset.val_share": Range(float, low=0, below=1),
    "dataset.test_share": Range(float, above=0, below=1),
    "model.dropout": Range(float, low=0, below=1),
    "dataset.test_images": Range(int, low=1),
    "task.label_smoothing": Range(float, low=0, below=1),
    "dataset.crop": Range(int, low=0),
    "dataset.image_size": Range(int, low=1, optional=True),
    "dataset.num_classes": Range(int, low=2),
    "storage.coding": Range(str, choices=("auto", "packed")),
    "storage.float": Range(str, choices=("auto", "float32", "float16", *(f"int{bits}" for bits in range(4, 16)))),
    "storage.fold": Range(bool, optional=True),
    "tracking.mode": Range(str, choices=("offline", "online", "disabled"), optional=True),
    **{f"tracking.{key}": Range(str, optional=True) for key in ("entity", "group", "name")},
    **{f"tracking.{key}": Range(str) for key in ("project", "job_type")},
    "tracking.tags": Range(list[str]),
    "tracking.timeout_seconds": Range(float, above=0),
}
