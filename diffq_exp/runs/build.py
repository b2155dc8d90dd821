"""From config nodes to objects. With run.py, the only place that calls Hydra's `instantiate`.

What a node cannot know (the device, the number of classes) is passed at run time, as far as the target takes it:
a class of the user's own need not accept what it has no use for.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import hydra.utils
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from ..command.choices import is_replaced
from ..command.request import Request
from ..command.schema import NODES
from ..common.units import MB
from ..data import Data
from ..quant.quantizer import Quantizer
from ..quant.size import Size
from ..tasks import Task, as_task
from ..training.optim import Optimizers, make_optimizers
from ..training.penalty import Penalty, SizeControl
from ..training.steering import SteeredPenalty, SteeredWidth
from ..training.target import Target

NOT_ARGUMENTS = ("training",)  # keys of a node that say how it is used


class UserError(ValueError):
    """A mistake of the user's that shows only when objects are built; told in one line."""


def build(node: DictConfig, *args: object, **runtime: object) -> Any:
    """Call a node's `_target_` with its keys, and with those of `runtime` that it accepts.

    Raises: whatever the target raises, unwrapped; UserError when there is no such target.
    """
    values = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    kept = {key: value for key, value in values.items() if key not in NOT_ARGUMENTS}
    partly = kept.pop("_partial_", False)
    name = values.get("_target_")
    try:
        target = hydra.utils.instantiate(kept, _partial_=True, _convert_="all")
    except Exception as error:  # Hydra wraps whatever an import raises
        cause = error
        while isinstance(cause.__cause__, Exception):
            cause = cause.__cause__
        raise UserError(f"{name}: {type(cause).__name__}: {str(cause).splitlines()[0]}") from error
    made = partial(target, *args, **accepted(target.func, runtime))
    if partly:
        return made
    try:
        return made()
    except TypeError as error:  # a key that the target does not take
        raise UserError(f"{name}: {error}") from error


def accepted(target: Callable[..., object], runtime: dict[str, Any]) -> dict[str, Any]:
    """Those of the `runtime` arguments that a class or function takes."""
    parameters = inspect.signature(target).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return runtime
    return {key: value for key, value in runtime.items() if key in parameters}


def drop_foreign_keys(cfg: DictConfig, request: Request) -> list[str]:
    """Take out of a node whose target was replaced the keys of its YAML file that the new target does not take.

    -> a line for each such node. A key that was typed stays, so that a wrong one is an error.
    """
    typed = {re.split("[=@]", word.lstrip("+~"))[0] for word in request.overrides}
    return [
        f"{cfg[group]._target_} does not take {', '.join(foreign)} of {group}={choice}"
        for group, choice in request.choices.items()
        if group in NODES and is_replaced(cfg, group, choice, typed) and (foreign := _drop(cfg, group, typed))
    ]


def _drop(cfg: DictConfig, group: str, typed: set[str]) -> list[str]:
    keys = {str(key): None for key in cfg[group] if not str(key).startswith("_") and key not in NOT_ARGUMENTS}
    try:
        taken = accepted(hydra.utils.get_object(cfg[group]._target_), keys)
    except Exception:  # of the user's module; `build` says so
        return []
    foreign = [key for key in keys if key not in taken and f"{group}.{key}" not in typed]
    with open_dict(cfg):
        for key in foreign:
            del cfg[group][key]
    return foreign


def pick_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def build_data(cfg: DictConfig, device: torch.device) -> Data:
    data = build(cfg.dataset, device=device, batch_size=cfg.batch_size, num_workers=cfg.num_workers)
    if not isinstance(data, Data):
        raise UserError(f"dataset._target_={cfg.dataset._target_}: gave a {type(data).__name__}, not a Data")
    return data


def build_model(cfg: DictConfig, data: Data, device: torch.device) -> nn.Module:
    model = build(cfg.model, **data.model_arguments)
    if not isinstance(model, nn.Module):
        raise UserError(f"model._target_={cfg.model._target_}: gave a {type(model).__name__}, not an nn.Module")
    return model.to(device)


def check_takes(model: nn.Module, data: Data) -> None:
    """Run a float network once on an input of zeros, as the data describe it, before anything is trained.

    Modes and random generators stay as they are. Raises: UserError where the network does not take such inputs.
    """
    if not isinstance(shape := data.input.get("shape"), list):
        return
    device = next((param.device for param in model.parameters()), torch.device("cpu"))
    kind = torch.int64 if data.input.get("dtype") == "int64" else torch.float32
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            model.eval()(torch.zeros(1, *shape, dtype=kind, device=device))
    except Exception as error:  # of a network that may be the user's own
        cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        advice = "; dataset.image_size brings images to one size" if len(shape) == 3 else ""
        raise UserError(f"the network does not take the inputs of {data.name}, {shape}: {cause}{advice}") from error
    finally:
        for module, training in modes:
            module.training = training


def build_task(cfg: DictConfig, data: Data) -> Task:
    try:
        return as_task(build(cfg.task, **data.task_arguments))
    except ValueError as error:
        raise UserError(f"task._target_={cfg.task._target_}: {error}") from error


def attach_quantizer(cfg: DictConfig, model: nn.Module) -> Quantizer | None:
    """The quantizer of the config on `model`, or None. Raises: UserError when nothing is left to quantize."""
    if cfg.quantizer.get("_target_") is None:
        return None
    quantizer = build(cfg.quantizer, model)
    if not isinstance(quantizer, Quantizer):
        given = type(quantizer).__name__
        raise UserError(f"quantizer._target_={cfg.quantizer._target_}: gave a {given}, not a Quantizer")
    if not quantizer.quantized_names:
        quantizer.detach()
        name, largest = max(model.named_parameters(), key=lambda item: item[1].numel())
        size = 4 * largest.numel() / MB
        raise UserError(
            f"nothing is left to quantize with min_size={cfg.quantizer.get('min_size', 0):g} MB "
            f"and exclude={list(cfg.quantizer.get('exclude', ()))}: "
            f"the largest parameter is {name!r} with {size:.4g} MB"
        )
    return quantizer


def build_optimizers(cfg: DictConfig, model: nn.Module) -> tuple[Optimizers, Quantizer | None]:
    """The optimizers of weights and bits, and the quantizer, attached between the two."""
    lr = OmegaConf.select(cfg, "quantizer.training.lr")  # a rate, or {suffix: rate}
    options = {} if lr is None else {"lr": OmegaConf.to_container(lr) if OmegaConf.is_config(lr) else lr}
    return make_optimizers(model, build(cfg.optimizer), lambda: attach_quantizer(cfg, model), options)


def build_size(cfg: DictConfig) -> Size:
    """The measure of size. Raises: UserError when the target gives something else."""
    size = build(cfg.size)
    if not isinstance(size, Size):
        raise UserError(f"size._target_={cfg.size._target_}: gave a {type(size).__name__}, not a Size")
    return size


def build_penalty(cfg: DictConfig, size: Size, target: Target | None = None) -> SizeControl | None:
    """The penalty on size in the loss, or what steers a run to its target; None where nothing does."""
    weight = OmegaConf.select(cfg, "quantizer.training.penalty")
    if target is not None:
        return SteeredWidth(target) if weight is None else SteeredPenalty(target, size)
    return None if weight is None else Penalty(weight, size, build(cfg.penalty_schedule))
