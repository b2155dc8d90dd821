"""The text of --help: every plain key in a line, and the choices of each group."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path

from .ranges import shown
from .schema import GROUPS, Config, group_choices

HEAD = """python -m diffq_exp.train [key=value ...]

How small can this network get before it gets worse? Trains, quantizes, stores and measures one network.

    python -m diffq_exp.train noise=uniform group_size=8      one run
    python -m diffq_exp.train -m penalty=0.3,3,30             a sweep
    python -m diffq_exp.train target_mb=0.1                   a size of the file, in place of a penalty
    python -m diffq_exp.train experiment=quick                a few seconds
    python -m diffq_exp.search max_drop=0.005                 the smallest file within half a point of float32
    python -m diffq_exp.search trials=40 over='{penalty: [10, 100]}'      a study by Optuna
"""
TAIL = """
Keys inside a group are set by group.key=value, a key that its YAML lacks by +group.key=value, and anything of
your own by group._target_=package.Class. --cfg job shows the whole config, --hydra-help Hydra's own options."""


def help_text(config_dir: Path | None = None) -> str:
    """Generated from the schema and the YAML files, so that it cannot fall behind them. config_dir: the user's."""
    lines = [HEAD, "Groups (group=choice):"]
    for group in GROUPS:
        lines.append(f"  {group:<18} {', '.join(group_choices(group, config_dir))}")
    lines += ["", "Keys (general defaults; an experiment may set its own):"]
    lines += [_key_line(field) for field in fields(Config) if field.metadata]
    return "\n".join([*lines, TAIL])


def _key_line(field: Field[object]) -> str:
    allowed = field.metadata["range"]
    return f"  {f'{field.name}={shown(default_of(field))}':<26} {field.metadata['help']} ({allowed.text})"


def default_of(field: Field[object]) -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()
