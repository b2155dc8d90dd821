"""Errors of a composed configuration as a whole: values that exclude each other, paths, packages and devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ..common.files import user_path
from ..results.records import is_run, status_of
from ..tracking.limits import MOST, name_errors
from .choices import is_shipped, shipped
from .consumption import (
    FLOAT32,
    SOURCE_KEYS,
    TRAINING_ONLY,
    has_target,
    only_afterwards,
    trains_nothing,
    unused_keys,
    unused_nodes,
)
from .devices import device_error
from .float32_run import float32_config, own_errors
from .network_files import is_of_a_network, network_files, pretrained_folder
from .overrides import text_of
from .parameters import parameters
from .ranges import NODE_RANGES, Range, shown
from .schema import NODES, PLAIN
from .targets import named_error
from .values import KEPT, plain, range_errors, values_of_nodes

NO_RUN = "no run"
FSDP = (
    "parallel=fsdp: fully_shard leaves each rank a slice of a weight, and a quantizer needs whole ones: their "
    "range, their groups, the bytes of the coder; parallel=ddp"
)
RUN_FOLDERS, SWEEP_FOLDERS = ("hydra.run.dir",), ("hydra.sweep.dir", "hydra.sweep.subdir")
WITHOUT_STEPS = ("none", "ptq", "qat", "diffq")  # quantizers whose grids rate-distortion rounding leaves alone


def consistency_errors(cfg: DictConfig) -> list[str]:
    """The errors of one job."""
    values = {name: (plain(cfg[name]), allowed) for name, allowed in PLAIN.items()}
    errors = range_errors(values) or range_errors(dict(values_of_nodes(cfg)))
    known = [name.removeprefix("storage.") for name in NODE_RANGES if name.startswith("storage.")]
    errors += [
        f"storage.{key}: unknown; allowed are {', '.join(known)}" for key in sorted(set(cfg.storage) - {*known})
    ]
    errors += _combination_errors(cfg) + _path_errors(cfg) + _target_errors(cfg) + _foreign_errors(cfg)
    errors += _tracking_errors(cfg) + ([error] if (error := device_error(cfg.device)) else [])
    return errors + _float32_errors(cfg, errors)


def _float32_errors(cfg: DictConfig, known: list[str]) -> list[str]:
    """The errors of the overrides that the float32 run has of its own. known: those of the run itself."""
    if not cfg[FLOAT32]:
        return []
    if errors := own_errors(cfg):
        return errors
    return [f"{FLOAT32}: {error}" for error in consistency_errors(float32_config(cfg)) if error not in known]


def _combination_errors(cfg: DictConfig) -> list[str]:
    unused = unused_keys(cfg)
    errors = []
    for low, high in (("min_bits", "init_bits"), ("init_bits", "max_bits")):
        if low not in unused and not cfg[low] < cfg[high]:
            errors.append(f"{low}={cfg[low]:g}: must be below {high}, which is {cfg[high]:g}")
    if not {"min_bits", "param"} & unused and cfg.min_bits == 0 and cfg.param == "noise":
        errors.append("min_bits=0: must be above 0 with param=noise, which learns a step, and 0 bits have none")
    if cfg.target_mb is not None and cfg.target_ratio is not None:
        errors.append(f"target_ratio={cfg.target_ratio:g}: not beside target_mb, which is {cfg.target_mb:g}")
    if has_target(cfg) and cfg.quantizer.get("_target_") is None:
        errors.append("target_mb, target_ratio: quantizer=none has no size to choose")
    if has_target(cfg) and cfg.round_penalty is not None and "round_penalty" not in unused:
        errors.append(f"round_penalty={cfg.round_penalty:g}: not beside a target, which would be filled up again")
    errors += [FSDP] if cfg.parallel == "fsdp" else []
    bits = cfg.quantizer.get("bits", 8)
    if str(cfg.quantizer.get("_target_")).endswith(".LSQ") and (bits < 2 or bits > 15 or bits % 1):
        errors.append(f"bits={bits:g}: LSQ takes a whole number >= 2 and <= 15")
    ramp = cfg.penalty_schedule
    if str(ramp.get("_target_")).endswith(".RampPenalty") and not ramp.start < ramp.end:
        errors.append(f"penalty_schedule.start={ramp.start:g}: must be below end, which is {ramp.end:g}")
    return errors


def _path_errors(cfg: DictConfig) -> list[str]:
    there = {
        "dataset.root": (Path.is_dir, "no such folder"),
        "dataset.path": (Path.exists, "no such file or folder"),
    }
    errors = []
    for name, (is_there, lacking) in there.items():
        given = plain(OmegaConf.select(cfg, name))
        if given is not None and not isinstance(given, str):
            errors.append(f"{name}={shown(given)}: text is allowed")
        elif given is not None and not is_there(user_path(given)):
            errors.append(f"{name}={given}: {lacking}")
    if (folder := pretrained_folder(cfg.model)) is not None and (error := _files_error(folder)):
        errors.append(f"model.name={cfg.model.name}: {error}")
    return errors + [error for key in SOURCE_KEYS if (error := _source_error(key, cfg[key]))]


def _tracking_errors(cfg: DictConfig) -> list[str]:
    """Names that W&B would refuse when the run has begun."""
    node = cfg.tracking
    disabled = (node.get("mode") or os.environ.get("WANDB_MODE")) == "disabled"
    if disabled or not str(node.get("_target_")).endswith(".WandbTracker"):
        return []
    return name_errors({kind: plain(node.get(kind)) for kind in MOST}, os.environ)


def _source_error(key: str, given: str | None) -> str | None:
    """Why a network cannot be taken from where it is said to be."""
    if given is None or given == FLOAT32:
        return None
    source = user_path(given)
    if not source.is_file() and not source.is_dir():
        return f"{key}={given}: no such run folder or file; {FLOAT32} means the float32 run of this one"
    if source.is_file() and not os.access(source, os.R_OK):
        return f"{key}={given}: cannot be read"
    status = _status(source) if source.is_dir() else ""
    if status == "finished":
        return None
    if status and (status != NO_RUN or key != "init_from"):
        return f"{key}={given}: needs a finished run; the status of this one is: {status}"
    error = _files_error(source)
    return f"{key}={given}: {error}" if error else None


def _files_error(source: Path) -> str | None:
    """Why the files of a network cannot be taken from where they are said to be."""
    try:
        files = network_files(source)
        if strange := next((path for path in files if not is_of_a_network(path)), None):
            return f"{strange.name} is neither a safetensors file nor one that torch.save writes"
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _status(run: Path) -> str:
    try:
        return status_of(run) if is_run(run) else NO_RUN
    except (ValueError, OSError):
        return "unreadable result.json"


def folder_errors(cfg: DictConfig, multirun: bool) -> list[str]:
    """What is wrong with the folder of a run that is right otherwise, as the folder may be named after it.

    It has no name, a file is in its way, or there is no permission to make it.
    """
    keys = SWEEP_FOLDERS if multirun else RUN_FOLDERS
    given = {key: OmegaConf.select(cfg, key) for key in keys}
    if errors := range_errors({key: (value, Range(str)) for key, value in given.items()}):
        return errors
    folder = Path(*given.values()).absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        return [f"{keys[0]}={given[keys[0]]}: {there} is not a folder"]
    if there != folder and not os.access(there, os.W_OK | os.X_OK):
        return [f"{keys[0]}={given[keys[0]]}: {there} cannot be written to"]
    return []


def _target_errors(cfg: DictConfig) -> list[str]:
    """Targets that are not there; looked for without importing their packages."""
    targets = {name: cfg[name].get("_target_") for name in NODES}
    if OmegaConf.is_dict(cfg.noise):
        targets["noise"] = cfg.noise.get("_target_")
    errors = {name: _target_error(name, target, cfg) for name, target in targets.items()}
    return [f"{name}._target_={shown(targets[name])}: {error}" for name, error in errors.items() if error]


def _target_error(name: str, target: object, cfg: DictConfig) -> str | None:
    if target is None and name in ("quantizer", "storage"):  # no quantizer; storage has options only
        return None
    shipped = (
        name in NODES and isinstance(target, str) and is_shipped(name, cfg.hydra.runtime.choices[name], target)
    )
    return None if shipped else named_error(target)


def _foreign_errors(cfg: DictConfig) -> list[str]:
    """Keys that a YAML file of ours lacks, and its class does not take either."""
    errors = []
    for group in NODES:
        choice, target = cfg.hydra.runtime.choices[group], cfg[group].get("_target_")
        if target is None or not is_shipped(group, choice, target):
            continue
        known = {*shipped(group, choice), "training"}  # which says how a quantizer is used
        added = [key for key in map(str, cfg[group]) if key not in known and not key.startswith("_")]
        taken = parameters(target) if added else None
        errors += [
            f"{group}.{key}: {target} does not take it; it takes {', '.join(sorted(taken))}"
            for key in added
            if taken is not None and key not in taken
        ]
    return errors


def without_validation(cfg: DictConfig) -> bool:
    """Whether nothing is held out to choose by."""
    return 0 in (cfg.dataset.get("val_fraction"), cfg.dataset.get("val_share"))


def nested_sweep_errors(cfg: DictConfig, base: DictConfig | None) -> list[str]:
    """A job whose experiment brings a sweep of its own, which nobody would carry out. base: of the command line."""
    grids = cfg.hydra.sweeper.get("grids")
    if base is None or not grids or grids == base.hydra.sweeper.get("grids"):
        return []
    return ["experiment: one that brings its own sweep stands alone"]


def target_errors(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """A penalty that is typed beside a target, which takes its place."""
    texts = [text_of(one) for one in typed if one.key_or_group in ("penalty", "quantizer.training.penalty")]
    return [f"{text}: a target steers the penalty; give one of them" for text in texts if has_target(cfg)]


def missing_errors(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """Keys that have no value; of a typed one, something else is wrong."""
    missing = {name for node in NODES for name in OmegaConf.missing_keys(cfg[node])}
    lacking = sorted(missing - {one.key_or_group for one in typed})
    return [f"{name}: has no default; give {name}=..." for name in lacking]


def removal_errors(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """Keys that are taken away from a class of ours, which may rely on them."""
    removed = [one.key_or_group.split(".") for one in typed if one.is_delete()]
    targets = {".".join(key): cfg[key[0]].get("_target_") for key in removed if key[0] in NODES and len(key) > 1}
    ours = [key for key, target in targets.items() if target is None or str(target).startswith("diffq_exp.")]
    return [f"~{key}: {KEPT}" for key in ours]


def unused_warnings(cfg: DictConfig, typed: Sequence[Override]) -> dict[str, str]:
    """Typed overrides that have no effect under the chosen nodes -> the warning for each."""
    unused = unused_keys(cfg) | unused_nodes(cfg)
    if trains_nothing(cfg):
        unused |= {*TRAINING_ONLY, "lr"}
    unused |= {"teacher"} if only_afterwards(cfg) else set()
    unused |= {"round_penalty"} if cfg.hydra.runtime.choices["quantizer"] in WITHOUT_STEPS else set()
    quantizer = cfg.hydra.runtime.choices["quantizer"]
    why = {FLOAT32: "without init_from=float32 or teacher=float32"}
    idle = [one for one in typed if one.key_or_group.partition(".")[0] in unused]
    reasons = {text_of(one): why.get(one.key_or_group, f"with quantizer={quantizer}") for one in idle}
    return {text: f"{text}: has no effect {reason}" for text, reason in reasons.items()}
