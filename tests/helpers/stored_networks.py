"""Tiny stored networks with the config of a run, as runs leave them: made here by hand, without training."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import nn

from diffq_exp import models, storage
from diffq_exp.command.schema import conf_dir, register
from diffq_exp.command.signature import register_resolver
from diffq_exp.data import Data
from diffq_exp.quant import UniformQuantizer
from diffq_exp.runs.build import build_data, build_model
from diffq_exp.runs.loading import stored_config

WORDS = [
    "dataset=synthetic", "dataset.num_classes=4", "dataset.channels=1", "dataset.image_size=8",
    "dataset.train_images=16", "dataset.test_images=48", "val_fraction=0", "batch_size=32", "quantizer=ptq",
    "bits=3", "min_size=0.0001",
]  # fmt: skip
CHOICES = {"model": "digits_cnn", "dataset": "synthetic", "task": "classification", "quantizer": "ptq"}


@cache
def _data_and_config() -> tuple[Data, dict[str, Any]]:
    register()
    register_resolver()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", WORDS)
    data = build_data(cfg, torch.device("cpu"))
    return data, stored_config(cfg, CHOICES, data, build_model(cfg, data, torch.device("cpu")))


def made_data() -> Data:
    """What the network was made for: 48 test images of 1 x 8 x 8 in 4 classes."""
    return _data_and_config()[0]


def config() -> dict[str, Any]:
    """What a run stores of itself beside the weights; one's own to change."""
    return copy.deepcopy(_data_and_config()[1])


@cache
def network() -> nn.Module:
    """A quantized network with statistics of its own, in eval mode."""
    torch.manual_seed(0)
    model = models.digits_cnn(num_classes=4, in_channels=1, image_size=8)
    with torch.no_grad():
        model(torch.rand(16, 1, 8, 8))
    UniformQuantizer(model, bits=3, min_size=0.0001)
    return model.eval()


def store(folder: Path, conf: dict[str, Any] | None = None, model: nn.Module | None = None) -> Path:
    """The stored model in a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    conf = config() if conf is None else conf
    storage.save(network() if model is None else model, path, conf, coding="packed")  # the quicker one
    return path
