"""Faults of a composed config as a whole: values that clash, paths, packages and devices that are not there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..results.records import status_of
from .overrides import grid_words, parse_all
from .schema import NODES, PLAIN, Range, shown
from .signature import only_afterwards, unused_keys


def together(cfg: DictConfig, multirun: bool = False) -> list[str]:
    """Faults that a composed config has as a whole."""
    faults = []
    for name, allowed in PLAIN.items():
        try:
            fault = out_of_range(name, _plain(cfg[name]), allowed)
        except OmegaConfBaseException as broken:
            return [f"{name}: {str(broken).splitlines()[0]}"]
        faults += [fault] if fault else []
    missing = [name for node in NODES for name in sorted(OmegaConf.missing_keys(cfg[node]))]
    faults += [f"{name}: has no default; give {name}=..." for name in missing]
    faults += [
        f"storage.{key}: unknown; coding and float are allowed" for key in set(cfg.storage) - {"coding", "float"}
    ]
    faults += _bits_faults(cfg) + _path_faults(cfg) + _target_faults(cfg) + _device_faults(cfg.device)
    return faults or _folder_faults(
        "hydra.sweep.dir" if multirun else "hydra.run.dir", cfg
    )  # a name needs the rest


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _bits_faults(cfg: DictConfig) -> list[str]:
    unused = unused_keys(cfg)
    faults = []
    for low, high in (("min_bits", "init_bits"), ("init_bits", "max_bits")):
        if low not in unused and not cfg[low] < cfg[high]:
            faults.append(f"{low}={cfg[low]:g}: must be below {high}, which is {cfg[high]:g}")
    if str(cfg.quantizer.get("_target_")).endswith(".LSQ") and (cfg.bits < 2 or cfg.bits % 1):
        faults.append(f"bits={cfg.bits:g}: LSQ takes a whole number >= 2 and <= 15")
    return faults


def _path_faults(cfg: DictConfig) -> list[str]:
    faults = []
    root = cfg.dataset.get("root") if not OmegaConf.is_missing(cfg.dataset, "root") else None
    if root is not None and not Path(root).expanduser().is_dir():
        faults.append(f"dataset.root={root}: no such folder")
    path = cfg.dataset.get("path") if not OmegaConf.is_missing(cfg.dataset, "path") else None
    if path is not None and not Path(path).expanduser().exists():
        faults.append(f"dataset.path={path}: no such file or folder")
    if cfg.init_from is not None:
        source = Path(cfg.init_from).expanduser()
        if not source.exists():
            faults.append(f"init_from={cfg.init_from}: no such run folder or file")
        elif source.is_dir() and (status := _status(source)) != "finished":
            faults.append(f"init_from={cfg.init_from}: a finished run is wanted, this one is {status}")
    return faults


def _status(run: Path) -> str:
    try:
        return status_of(run) or "none"
    except (ValueError, OSError):
        return "one without a readable result.json"


def _folder_faults(key: str, cfg: DictConfig) -> list[str]:
    """A file where the run's folder, or a folder above it, should be."""
    given = OmegaConf.select(cfg, key)
    folder = Path(given).absolute()
    return [
        f"{key}={given}: {path} is not a folder"
        for path in (folder, *folder.parents)
        if (path.exists() or path.is_symlink()) and not path.is_dir()
    ]


def sweep_faults(cfg: DictConfig, typed: Sequence[Override]) -> list[str]:
    """Faults of how a sweep is asked for; only for our own sweeper and launcher."""
    faults: list[str | None] = [
        f"{one.input_line}: Hydra's own keys take one value"
        for one in typed
        if one.is_hydra_override() and one.is_sweep_override()
    ]
    if str(cfg.hydra.launcher.get("_target_")).endswith(".ProcessLauncher"):
        n_jobs = Range(int, low=1, optional=True)
        faults += [out_of_range("hydra.launcher.n_jobs", cfg.hydra.launcher.n_jobs, n_jobs)]
    if not _is_ours(cfg):
        return [fault for fault in faults if fault]
    faults += [
        f"hydra.sweeper.{key}: unknown; grids and by are allowed"
        for key in cfg.hydra.sweeper
        if key not in ("_target_", "grids", "by")
    ]
    faults += _by_faults(_plain(cfg.hydra.sweeper.by))
    grids = _plain(cfg.hydra.sweeper.grids)
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        faults.append(f"hydra.sweeper.grids={shown(grids)}: a list of {{key: [values]}} is allowed")
    given = [one for grid in grids_of(cfg) for one in parse_all(grid_words(grid), [])]
    faults += [f"{one.input_line}: Hydra's own keys are not for grids" for one in given if one.is_hydra_override()]
    faults += [
        f"{one.input_line}: intervals need another sweeper (hydra/sweeper=optuna, say); this one takes values"
        for one in [*typed, *given]
        if one.is_interval_sweep()
    ]
    if given and any(one.key_or_group == "experiment" and one.is_sweep_override() for one in typed):
        faults.append("experiment: one that brings its own sweep stands alone")
    return [fault for fault in faults if fault]


def grids_of(cfg: DictConfig) -> list[dict[str, Any]]:
    """The grids of a sweep with our sweeper, as far as they are any."""
    grids = _plain(cfg.hydra.sweeper.get("grids")) if _is_ours(cfg) else None
    return [grid for grid in grids if isinstance(grid, dict)] if isinstance(grids, list) else []


def _is_ours(cfg: DictConfig) -> bool:
    return str(cfg.hydra.sweeper.get("_target_")).endswith(".GridSweeper")


def _by_faults(by: Any) -> list[str]:
    if not isinstance(by, list):
        return [f"hydra.sweeper.by={shown(by)}: a list of keys is allowed"]
    known = [*NODES, *PLAIN]
    return [
        f"hydra.sweeper.by: {key!r} is unknown; the nearest is {get_close_matches(str(key), known, 1, 0.0)[0]}"
        for key in by
        if str(key) not in known and str(key).partition(".")[0] not in NODES
    ]


def grid_faults(cfg: DictConfig, base: DictConfig | None) -> list[str]:
    """A job whose experiment brings a sweep, which would not be carried out; base: what the whole command gives."""
    grids = cfg.hydra.sweeper.get("grids")
    if base is None or not grids or grids == base.hydra.sweeper.get("grids"):
        return []
    return ["experiment: one that brings its own sweep stands alone"]


def _target_faults(cfg: DictConfig) -> list[str]:
    """Targets in packages that are not there; looked for without importing them."""
    faults = []
    for name in NODES:
        target = cfg[name].get("_target_")
        if target is None and name in ("quantizer", "storage"):  # nothing, and plain options
            continue
        if not isinstance(target, str) or "." not in target:
            faults.append(f"{name}._target_={shown(target)}: package.Class is allowed")
        elif find_spec(target.partition(".")[0]) is None:
            faults.append(f"{name}._target_={target}: no package or module {target.partition('.')[0]!r} is found")
    return faults


def _device_faults(device: str) -> list[str]:
    """Asks torch only when a device of a certain kind is wanted: importing it takes seconds."""
    if device not in ("cuda", "mps"):
        return []
    from ..runs.build import device_fault

    return [fault] if (fault := device_fault(device)) else []


def unused_warnings(cfg: DictConfig, typed: Sequence[Override]) -> dict[str, str]:
    """Words that were typed and that nothing takes up under the chosen nodes -> what to say of each."""
    unused = unused_keys(cfg)
    if cfg.init_from is not None and only_afterwards(cfg):
        unused |= {"epochs", "lr", "accumulate", "clip", "compile"}
    quantizer = cfg.hydra.runtime.choices["quantizer"]
    words = [one.input_line or "" for one in typed if one.key_or_group in unused]
    return {word: f"{word}: has no effect with quantizer={quantizer}" for word in words}


def out_of_range(name: str, value: Any, allowed: Range | None) -> str | None:
    if allowed is None or (isinstance(value, str) and value.startswith("${")) or allowed.allows(value):
        return None
    return f"{name}={shown(value)}: {allowed.text} is allowed"
