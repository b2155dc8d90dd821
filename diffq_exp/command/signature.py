"""What a run consumes, and its name after that: outputs/<dataset>-<model>-<quantizer>-<signature>.

The signature hashes resolved values: those of the nodes (with what they take up of the plain keys) and the plain
keys that the trainer reads. Nulls are left out and so is what nothing consumes, so that a new option with a null
default, or a key that this quantizer ignores, keeps the name of old runs. Nothing of the machine enters it but
`threads`: sums in another order round otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..common.files import user_path
from ..results.records import RunRecord, is_run, read_record
from ..results.renamed import OLD_NAMES, with_targets
from .choices import label
from .consumption import (
    FINISH_KEYS,
    FLOAT32,
    LATER_TRAINER_KEYS,
    SOURCE_KEYS,
    TEACHER_KEYS,
    TRAINER_KEYS,
    TRAINING_ONLY,
    UNSIGNED_KEYS,
    consumed_nodes,
    has_target,
    only_afterwards,
    resolved,
    trains_nothing,
    unused_keys,
)
from .float32_run import float32_config, without
from .network_files import content_of, pretrained_folder
from .schema import PLAIN

LATER_KEYS = {  # of nodes, added after runs had signatures, with their defaults
    "storage.fold": False,
    "quantizer.per_channel": False,
    "quantizer.ranges": "minmax",
    "quantizer.least_dims": 2,
}
PLACE_OF = {"diffq_exp.data.text": "path"}  # which key of a data set says where it lies, if not root
LOCATIONS = ("download_root", "cache_dir")  # where copies of public data lie says nothing about a run


def consumed(cfg: DictConfig) -> dict[str, Any]:
    """The resolved values that a run depends on, nested, nulls left out, whole numbers as integers.

    Raises: omegaconf errors for values that are missing or do not resolve.
    """
    later = (name for name, default in LATER_TRAINER_KEYS.items() if cfg[name] != default)
    names = (*consumed_nodes(cfg), *TRAINER_KEYS, *FINISH_KEYS, *later)
    if trains_nothing(cfg):
        names = tuple(name for name in names if name not in TRAINING_ONLY)
    values = {name: resolved(cfg[name]) for name in names}
    place = PLACE_OF.get(values["dataset"].get("_target_"), "root")
    if values["dataset"].get(place) is not None:  # the user's own data, however their place was typed
        values["dataset"][place] = str(user_path(values["dataset"][place]).resolve())
    if has_target(cfg):
        (values["quantizer"].get("training") or {}).pop("penalty", None)
    _drop_later_keys(values)
    values |= _sources(cfg) | _own_float32(cfg)
    kept: dict[str, object] = _without_nulls(values)
    return kept


def _drop_later_keys(values: dict[str, Any]) -> None:
    """Take the keys of LATER_KEYS that have their default out of nodes."""
    for key, default in LATER_KEYS.items():
        node, name = key.split(".")
        if values.get(node, {}).get(name) == default:
            del values[node][name]


_kept: dict[int, Callable[[], str]] = {}  # id of a configuration -> its signature


@contextmanager
def signature_kept(cfg: DictConfig) -> Iterator[None]:
    """Inside, where nothing changes `cfg`, its signature is computed once: its folders are named after it."""
    _kept[id(cfg)] = cache(lambda: _signature(cfg))
    try:
        yield
    finally:
        del _kept[id(cfg)]


def signature(cfg: DictConfig) -> str:
    """Ten hexadecimal digits that name what `cfg` consumes."""
    return _kept.get(id(cfg), lambda: _signature(cfg))()


def _signature(cfg: DictConfig) -> str:
    values = with_targets(consumed(cfg), lambda target: OLD_NAMES.get(target, target))
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_name(cfg: DictConfig, choices: Mapping[str, str] | None = None) -> str:
    """<dataset>-<model>-<quantizer>-<signature>, after the chosen YAML files."""
    names = labels(cfg, choices or cfg.hydra.runtime.choices)
    return "-".join([names["dataset"], names["model"], names["quantizer"], signature(cfg)])


def _sources(cfg: DictConfig) -> dict[str, Any]:
    """What stands for other networks in a signature, and how a teacher is used."""
    given = {key: cfg[key] for key in SOURCE_KEYS if cfg[key] is not None}
    if only_afterwards(cfg):  # nothing follows a teacher, and the float32 run is what it begins from anyway
        given = {key: value for key, value in given.items() if key == "init_from" and value != FLOAT32}
    identities = {value: identity(cfg, value) for value in set(given.values())}
    values: dict[str, object] = {key: identities[value] for key, value in given.items()}
    if (folder := pretrained_folder(cfg.model)) is not None:
        values["pretrained"] = content_of(folder, folder / "config.json")  # which says what its layers compute
    if cfg.init_strict and "init_from" in given and not only_afterwards(cfg):
        values["init_strict"] = True  # so that a run that began from a part of the file is not taken for this one
    return values | ({key: cfg[key] for key in TEACHER_KEYS} if "teacher" in given else {})


def _own_float32(cfg: DictConfig) -> dict[str, str]:
    """What stands for a float32 run that is no source (of PTQ), where it differs from that without the key."""
    if not cfg[FLOAT32] or not only_afterwards(cfg) or trains_nothing(cfg):
        return {}
    without_key = cfg.copy()
    without_key[FLOAT32] = None
    own = identity(cfg, FLOAT32)
    return {FLOAT32: own} if own != identity(without_key, FLOAT32) else {}


def identity(cfg: DictConfig, given: str) -> str:
    """What stands for a network that is given so: the signature of its run, or the hash of a file's content."""
    if given == FLOAT32:
        return signature(float32_config(cfg))
    source = user_path(given)
    return read_record(source).signature if is_run(source) else content_of(source)


def record_of(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Iterable[str], hydra: DictConfig | None = None
) -> RunRecord:
    """The record of a run before it begins: its signature and what it is to do. hydra: Hydra's own config.

    In "config" stand the plain keys that it consumes, by value, and nodes that name them as `${key}`: so runs that
    differ in one key, the seed say, differ in that one entry only. Nulls are left out, and the float32 run of the
    same configuration is called that.
    """
    keys = [key for key in PLAIN if key not in (*UNSIGNED_KEYS, *TEACHER_KEYS, *unused_keys(cfg))]
    keys = [key for key in keys if key not in LATER_TRAINER_KEYS or cfg[key] != LATER_TRAINER_KEYS[key]]
    values = {key: resolved(cfg[key]) for key in keys}
    values |= {name: OmegaConf.to_container(cfg[name], resolve=False) for name in consumed_nodes(cfg)}
    _drop_later_keys(values)
    values |= {key: FLOAT32 if cfg.get(key) == FLOAT32 else value for key, value in _sources(cfg).items()}
    values |= {FLOAT32: sorted(cfg[FLOAT32] or ()) or None} if FLOAT32 in keys else {}
    sources = hydra.runtime.config_sources if hydra is not None else []
    searched = [os.path.relpath(source.path) for source in sources if source.provider == "command-line"]
    return RunRecord(
        signature=signature(cfg),
        seed=cfg.seed,
        choices=labels(cfg, choices),
        overrides=without(overrides, {"restart", "dry_run", "hydra"}),
        config_dir=searched[0] if searched else None,
        config=_without_nulls(values),
    )


def labels(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, str]:
    """The name that stands for each consumed node: {"dataset": "digits", "quantizer": "qat", ...}."""
    return {group: label(cfg, group, choices[group]) for group in consumed_nodes(cfg)}


def register_resolver() -> None:
    """Give hydra.run.dir its `${run_name:}`."""
    OmegaConf.register_new_resolver("run_name", lambda *, _root_: run_name(_root_), replace=True)


def _without_nulls(value: object) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_nulls(item) for key, item in value.items() if key not in LOCATIONS}
        return {key: item for key, item in kept.items() if item is not None and item != {}}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 is 1, however it was typed
    return value
