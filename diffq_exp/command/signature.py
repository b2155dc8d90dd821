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
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..common.files import user_path
from ..results.records import RunRecord, is_run, read_record
from ..results.renamed import OLD_NAMES, with_targets
from .choices import label, shipped
from .network_files import content_of, pretrained_folder
from .ranges import shown
from .schema import NODES, PLAIN, conf_dir

CONSUMED_NODES = tuple(name for name in NODES if name != "tracking")
# Added after runs had signatures, with their defaults:
LATER_NODES = {"size": "formula", "penalty_schedule": "constant"}
LATER_KEYS = {
    "storage.fold": False,
    "quantizer.per_channel": False,
    "quantizer.ranges": "minmax",
    "quantizer.least_dims": 2,
}
TRAINER_KEYS = ("seed", "epochs", "batch_size", "accumulate", "clip", "precision", "compile", "threads")
LATER_TRAINER_KEYS = {"sync_batch_norm": False}  # likewise
TARGET_KEYS = ("target_mb", "target_ratio")  # in place of the penalty
FINISH_KEYS = ("average_decay", "batch_norm_batches", "round_penalty", *TARGET_KEYS)  # besides steps
TEACHER_KEYS = ("teacher_weight", "teacher_temperature")  # read where there is a teacher
SOURCE_KEYS = ("init_from", "teacher")  # other networks: runs, files, or FLOAT32
FLOAT32 = "float32"  # the run of the same configuration with quantizer=none
FLOAT32_VALUES = {  # and with these
    "init_from": None,
    "teacher": None,
    "storage.float": "float32",
    "storage.fold": False,
    "round_penalty": None,
    "target_mb": None,
    "target_ratio": None,
}
# No part of a signature as they are typed; sources count by what they hold.
UNSIGNED_KEYS = (
    "device", "parallel", "num_workers", "checkpoint_minutes", "restart", "dry_run", "init_strict", *SOURCE_KEYS,
)  # fmt: skip
TRAINING_ONLY = ("optimizer", "scheduler", "epochs", "accumulate", "clip", "compile", "average_decay")
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
    values = {name: _plain(cfg[name]) for name in names}
    place = PLACE_OF.get(values["dataset"].get("_target_"), "root")
    if values["dataset"].get(place) is not None:  # the user's own data, however their place was typed
        values["dataset"][place] = str(user_path(values["dataset"][place]).resolve())
    if has_target(cfg):
        (values["quantizer"].get("training") or {}).pop("penalty", None)
    _drop_later_keys(values)
    values |= _sources(cfg)
    kept: dict[str, object] = _without_nulls(values)
    return kept


def _drop_later_keys(values: dict[str, Any]) -> None:
    """Take the keys of LATER_KEYS that have their default out of nodes."""
    for key, default in LATER_KEYS.items():
        node, name = key.split(".")
        if values.get(node, {}).get(name) == default:
            del values[node][name]


def consumed_nodes(cfg: DictConfig) -> list[str]:
    """Names of the nodes that a run depends on.

    A node of LATER_NODES counts only where it is not the default (as a key of LATER_KEYS): a run has the signature,
    and the record, that it had before there was such a node.
    """
    unused = unused_nodes(cfg) | {
        name for name, choice in LATER_NODES.items() if _plain(cfg[name]) == shipped(name, choice)
    }
    return [name for name in CONSUMED_NODES if name not in unused]


def unused_nodes(cfg: DictConfig) -> set[str]:
    """Nodes without effect under the chosen quantizer."""
    penalty = OmegaConf.select(cfg, "quantizer.training.penalty")
    unused = {"penalty_schedule"} if penalty is None or has_target(cfg) else set()
    return unused | ({"size"} if cfg.quantizer.get("_target_") is None else set())


def has_target(cfg: DictConfig) -> bool:
    """Whether the file has a size to end at."""
    return any(cfg.get(key) is not None for key in TARGET_KEYS)


def only_afterwards(cfg: DictConfig) -> bool:
    """Whether the quantizer is applied to a trained network, without training of its own."""
    return bool(OmegaConf.select(cfg, "quantizer.training.after", default=False))


def trains_nothing(cfg: DictConfig) -> bool:
    """Whether a run only quantizes a network that it is given."""
    return only_afterwards(cfg) and cfg.init_from not in (None, FLOAT32)


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


def identity(cfg: DictConfig, given: str) -> str:
    """What stands for a network that is given so: the signature of its run, or the hash of a file's content."""
    if given == FLOAT32:
        return signature(float32_config(cfg))
    source = user_path(given)
    return read_record(source).signature if is_run(source) else content_of(source)


def float32_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the float32 run of a run: without quantizer and other networks, stored as it is."""
    plain = cfg.copy()
    with open_dict(plain):
        plain.quantizer = OmegaConf.load(conf_dir() / "quantizer" / "none.yaml")
        plain.restart = False
        for key, value in FLOAT32_VALUES.items():
            OmegaConf.update(plain, key, value)
    return plain


def float32_overrides(cfg: DictConfig, overrides: Iterable[str]) -> list[str]:
    """What stands after `python -m diffq_exp.train` for the float32 run of a run that has these overrides."""
    plain = float32_config(cfg)
    kept = without(overrides, {"quantizer", *FLOAT32_VALUES, *unused_keys(plain)})
    differing = [key for key, value in FLOAT32_VALUES.items() if OmegaConf.select(cfg, key) != value]
    return [*kept, "quantizer=none", *(f"{key}={shown(FLOAT32_VALUES[key])}" for key in differing)]


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
    values = {key: _plain(cfg[key]) for key in keys}
    values |= {name: OmegaConf.to_container(cfg[name], resolve=False) for name in consumed_nodes(cfg)}
    _drop_later_keys(values)
    values |= {key: FLOAT32 if cfg.get(key) == FLOAT32 else value for key, value in _sources(cfg).items()}
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


def without(overrides: Iterable[str], keys: set[str]) -> list[str]:
    """The overrides that do not set one of the keys, or a key inside one of these nodes."""
    typed = {str(word): re.split(r"[=@/]", word.lstrip("+~"), maxsplit=1)[0] for word in overrides}
    return [word for word, key in typed.items() if key not in keys and key.partition(".")[0] not in keys]


def labels(cfg: DictConfig, choices: Mapping[str, str]) -> dict[str, str]:
    """The name that stands for each consumed node: {"dataset": "digits", "quantizer": "qat", ...}."""
    return {group: label(cfg, group, choices[group]) for group in consumed_nodes(cfg)}


def unused_keys(cfg: DictConfig) -> set[str]:
    """Plain keys that no node takes up and the trainer does not read, under the chosen nodes."""
    text = json.dumps([OmegaConf.to_container(cfg[name], resolve=False) for name in NODES])
    used = set(re.findall(r"\$\{(\w+)\}", text))
    used |= set(TEACHER_KEYS) if cfg.teacher is not None and not only_afterwards(cfg) else set()
    used -= {"penalty"} if has_target(cfg) else set()
    return set(PLAIN) - used - {*TRAINER_KEYS, *LATER_TRAINER_KEYS, *FINISH_KEYS} - set(UNSIGNED_KEYS)


def register_resolver() -> None:
    """Give hydra.run.dir its `${run_name:}`."""
    OmegaConf.register_new_resolver("run_name", lambda *, _root_: run_name(_root_), replace=True)


def _plain(value: object) -> Any:
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    return value


def _without_nulls(value: object) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_nulls(item) for key, item in value.items() if key not in LOCATIONS}
        return {key: item for key, item in kept.items() if item is not None and item != {}}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1.0 is 1, however it was typed
    return value
