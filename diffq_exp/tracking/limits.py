"""The names that W&B takes. It refuses a run for a longer one, or its server does, when the run has begun."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

MOST = {"project": 128, "group": 128, "name": 128, "job_type": 64, "tags": 64}  # characters
VARIABLES = {"project": "PROJECT", "group": "RUN_GROUP", "name": "NAME", "job_type": "JOB_TYPE", "tags": "TAGS"}
NOT_IN_PROJECTS = "/\\#?%:"


def shortened(text: str, kind: str) -> str:
    """A name of ours that W&B takes; one that is cut ends in a digest, so that it stays another than others."""
    if len(text) <= MOST[kind]:
        return text
    return f"{text[: MOST[kind] - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def name_errors(tracking: Mapping[str, object], environment: Mapping[str, str]) -> list[str]:
    """Errors of what the user gives: keys of `tracking`, and where they are null, variables of W&B."""
    return [error for kind in MOST for error in _errors(kind, *_given(kind, tracking, environment))]


def _given(kind: str, tracking: Mapping[str, object], environment: Mapping[str, str]) -> tuple[str, object]:
    """-> where a name is given, and what."""
    variable = f"WANDB_{VARIABLES[kind]}"
    if tracking.get(kind) in (None, []) and (text := environment.get(variable)):
        return variable, text.split(",") if kind == "tags" else text
    return f"tracking.{kind}", tracking.get(kind)


def _errors(kind: str, where: str, given: object) -> list[str]:
    if kind == "tags" and not isinstance(given, (list, type(None))):
        return [f"{where}={given}: a list is allowed"]
    names = [str(name) for name in (given if isinstance(given, list) else [given]) if name is not None]
    if kind == "project" and set(NOT_IN_PROJECTS) & set("".join(names)):
        return [f"{where}={given}: W&B takes none of {' '.join(NOT_IN_PROJECTS)} in it"]
    return [
        f"{where}: {name[:32]!r} has {len(name)} characters; W&B takes 1 to {MOST[kind]}"
        for name in names
        if not 1 <= len(name) <= MOST[kind]
    ]
