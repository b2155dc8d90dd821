"""The float32 run of a run: the same configuration with quantizer=none, and the overrides in the key `float32`.

Other runs begin from it, or follow it (init_from=float32, teacher=float32); the search compares with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from .consumption import FLOAT32, resolved, unused_keys
from .overrides import parse, parse_all, text_of
from .ranges import shown
from .schema import PLAIN, conf_dir, group_choices
from .values import range_error, value_errors

FLOAT32_VALUES: dict[str, Any] = {  # of every float32 run
    "init_from": None,
    "teacher": None,
    "storage.float": "float32",
    "storage.fold": False,
    "round_penalty": None,
    "target_mb": None,
    "target_ratio": None,
    FLOAT32: None,
}
OWN_KEYS = (  # that it may have of its own: how it is trained, not on what
    "epochs",
    "batch_size",
    "accumulate",
    "lr",
    "clip",
    "average_decay",
    "batch_norm_batches",
    "precision",
    "optimizer.*",
    "scheduler.*",
    "dataset.crop",
    "dataset.flip",
    "dataset.min_scale",
    "model.dropout",
    "task.label_smoothing",
)


def float32_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the float32 run of a run: without quantizer and other networks, stored as it is."""
    plain = cfg.copy()
    with open_dict(plain):
        plain.quantizer = OmegaConf.load(conf_dir() / "quantizer" / "none.yaml")
        plain.restart = False
        own = {one.key_or_group: one.value() for one in map(parse, _own(cfg))}
        for key, value in {**own, **FLOAT32_VALUES}.items():
            OmegaConf.update(plain, key, value)
    return plain


def float32_overrides(cfg: DictConfig, overrides: Iterable[str]) -> list[str]:
    """What stands after `python -m diffq_exp.train` for the float32 run of a run that has these overrides."""
    plain = float32_config(cfg)
    own = {parse(text).key_or_group: text.lstrip("+") for text in _own(cfg)}
    kept = without(overrides, {"quantizer", *own, *FLOAT32_VALUES, *unused_keys(plain)})
    differing = {key: value for key, value in FLOAT32_VALUES.items() if OmegaConf.select(cfg, key) != value}
    given = [f"++{text}" if "." in key else text for key, text in own.items()]
    return [*kept, "quantizer=none", *given, *(f"{key}={shown(value)}" for key, value in differing.items())]


def _own(cfg: DictConfig) -> list[str]:
    return list(cfg[FLOAT32] or ())


def own_errors(cfg: DictConfig) -> list[str]:
    """What is wrong with the overrides that the float32 run alone has, each by itself."""
    if error := range_error(FLOAT32, resolved(cfg[FLOAT32]), PLAIN[FLOAT32]):
        return [error]
    errors: list[str] = []
    for override in parse_all(_own(cfg), errors):
        text, key = text_of(override), override.key_or_group
        if not text.lstrip("+").startswith(f"{key}="):
            errors.append(f"{text}: key=value is allowed")
        elif not any(fnmatch(key, pattern) for pattern in OWN_KEYS):
            errors.append(f"{text}: allowed are {', '.join(OWN_KEYS)}")
        else:
            errors += value_errors(override, False, cfg, group_choices)
    keys = [text.lstrip("+").partition("=")[0] for text in _own(cfg)]
    errors += [f"{key}: is given twice" for key in sorted(set(keys)) if keys.count(key) > 1]
    if not errors:
        errors += [f"{key}: has no effect" for key in sorted({*keys} & unused_keys(float32_config(cfg)))]
    return [f"{FLOAT32}: {error}" for error in errors]


def without(overrides: Iterable[str], keys: set[str]) -> list[str]:
    """The overrides that do not set one of the keys, or a key inside one of these nodes."""
    typed = {str(word): re.split(r"[=@/]", word.lstrip("+~"), maxsplit=1)[0] for word in overrides}
    return [word for word, key in typed.items() if key not in keys and key.partition(".")[0] not in keys]
