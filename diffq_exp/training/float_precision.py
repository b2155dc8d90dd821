"""The precision in which to store what a method does not quantize, where `storage.float=auto`: one that is free.

Biases and batch norms are a large share of a very small file. Each precision is tried with the network as it would
be stored; the one with the fewest bits whose loss is as low as with float32, but for FREE, is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import nn

from ..data import Loader
from ..stored.floats import FLOATS
from ..stored.network import StoredModel, write_into
from ..tasks import Task
from .measure import mean_scores

log = logging.getLogger("diffq_exp")

AUTO = "auto"
MEANWHILE = "int8"  # with which sizes are measured in training, and the most that is taken where there is a target
FREE = 0.005  # of the loss: a rise that counts as none
TRIED = (*(name for name in FLOATS if name.startswith("int")), "float16")  # by bits, the fewest first


def choose_precision(
    stored: Callable[[str], StoredModel], model: nn.Module, loader: Loader, task: Task, most: str = "float16"
) -> str:
    """The first of TRIED that is free, or else `most`.

    stored: gives the network with its floats in a precision. model: a network that its weights are put into.
    loader: of a part of the data that nothing is reported on.
    """
    tried = TRIED[: TRIED.index(most) + 1]
    losses = {}
    for precision in ("float32", *tried):
        write_into(model, stored(precision))
        losses[precision] = mean_scores(model, loader, task)["loss"]
        if precision != "float32" and losses[precision] <= (1 + FREE) * losses["float32"]:
            break
    else:
        precision = most
    told = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
    log.info(f"floats are stored as {precision}; loss with each: {told}")
    return precision
