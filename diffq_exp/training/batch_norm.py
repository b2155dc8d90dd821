"""Batch norms after training: statistics measured with the stored weights, dead channels switched off."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import Loader


@torch.no_grad()
def measure_batch_norms(model: nn.Module, loader: Loader, batches: int) -> None:
    """Set the statistics of all batch norms to their mean over the first batches of epoch 0 of `loader`.

    All else is in eval mode, so that the forward computes with the stored weights and without dropout. Batch norms
    without statistics are left alone; modes are put back. Then dead channels are switched off.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over batches
            norm.train()
        for inputs, _ in islice(loader.epoch(0), batches):
            model(inputs)
        model.eval()
        inputs, _ = next(iter(loader.epoch(0)))
        _switch_off(model, [norm for norm in norms if norm.affine], inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _switch_off(model: nn.Module, norms: list[_BatchNorm], inputs: Tensor) -> None:
    """Give channels that never varied the weight 0, and the bias 0 where no output of the network shows it.

    Such a channel is constant, so that its weight says nothing; a negative constant that meets a ReLU is 0 anyway.
    """
    outputs = model(inputs)
    for norm in norms:
        dead = norm.running_var == 0
        hidden = dead & (norm.bias < 0)
        norm.weight[dead] = 0.0
        kept = norm.bias.clone()
        norm.bias[hidden] = 0.0
        if hidden.any() and not torch.equal(model(inputs), outputs):
            norm.bias.copy_(kept)
