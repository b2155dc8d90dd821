"""Statistics of batch norms, measured again with the weights that are stored."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import Loader


@torch.no_grad()
def measure_batch_norms(model: nn.Module, loader: Loader, batches: int) -> None:
    """Set the statistics of all batch norms to their mean over the first batches of epoch 0 of `loader`.

    All else is in eval mode, so that the forward computes with the stored weights and without dropout. Batch norms
    without statistics are left alone; modes are put back.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()  # type: ignore[no-untyped-call]
            norm.momentum = None  # a plain mean over batches
            norm.train()
        for number, (inputs, _) in enumerate(loader.epoch(0)):
            if number == batches:
                break
            model(inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(training)
