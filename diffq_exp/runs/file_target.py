"""The size that the file of a run is to have, from `target_mb` or `target_ratio`."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf
from torch import nn

from .. import storage
from ..command.consumption import has_target, only_afterwards
from ..common.units import MB
from ..data import Data
from ..quant.quantizer import Quantizer
from ..stored.network import StoredModel
from ..training.float_precision import AUTO, MEANWHILE
from ..training.size_record import float32_mb
from ..training.target import Target, varied_floats
from .loading import stored_config

CERTAIN = 0.8  # of the size without levels, below which a target is refused: floats may become a little smaller


class TargetTooSmall(ValueError):
    """A target for the file that no training can meet."""


def file_target(
    cfg: DictConfig, choices: dict[str, str], data: Data, model: nn.Module, quantizer: Quantizer | None
) -> Target | None:
    """The target of a run; None where it has none. Raises: TargetTooSmall where no levels at all would be more."""
    if not has_target(cfg) or quantizer is None:
        return None
    config, options = stored_config(cfg, choices, data, model), cfg.storage
    floats = MEANWHILE if options.float == AUTO else options.float
    float32 = float32_mb(model, set(quantizer.learned()))
    target = MB * (cfg.target_mb if cfg.target_mb is not None else float32 / cfg.target_ratio)

    def stored() -> StoredModel:
        return storage.stored_model_of(quantizer, floats, bool(options.fold))

    def file_bytes() -> int:
        return len(storage.serialize(stored(), config, coding=options.coding))

    if type(quantizer).coarsen is Quantizer.coarsen:
        raise TargetTooSmall(f"{type(quantizer).__name__} has no coarsen(), which makes a file fit a size")
    with varied_floats(model, quantizer):
        rest = len(storage.serialize(stored().without_levels(), config, coding=options.coding))
    if target < CERTAIN * rest:
        key = "target_mb" if cfg.target_mb is not None else "target_ratio"
        raise TargetTooSmall(
            f"{key}={cfg[key]:g}: the file has {rest / MB:.4g} MB without any levels, float32 {float32:.4g} MB"
        )
    finer = only_afterwards(cfg) or OmegaConf.select(cfg, "quantizer.training.penalty") is not None
    return Target(target, file_bytes, rest, finer)
