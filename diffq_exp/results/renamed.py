"""Classes that have another name since runs were recorded: {the name in an old record or file: the name now}.

An old stored model is built by the new name. A run keeps its signature, which hashes the old name, and old and new
runs of one configuration are one point of a report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NEW_NAMES = {"diffq_exp.training.objective.Classification": "diffq_exp.tasks.classification.Classification"}
OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}


def new_name(target: object) -> Any:
    """The present name of the class that a record calls `target`."""
    return NEW_NAMES.get(target, target) if isinstance(target, str) else target


def with_targets(values: object, rename: Callable[[Any], object]) -> Any:
    """A nested configuration with every `_target_` renamed."""
    if isinstance(values, list):
        return [with_targets(item, rename) for item in values]
    if not isinstance(values, dict):
        return values
    return {key: rename(item) if key == "_target_" else with_targets(item, rename) for key, item in values.items()}
