"""Hold a validation part out of the training part, every class in its share.

Stratified, since a plain draw of a few hundred images moves the balance of classes, and with it the accuracy
that models are chosen by, from seed to seed.

The parts are those of scikit-learn's train_test_split(stratify=...), draw for draw, so that a seed gives
the split that it gave earlier runs. It is not called, as importing it takes as long as half of torch (0.7 s).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .order import derive_seed

Ints = NDArray[np.int64]


def stratified_split(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (N - V,) kept for training and (V,) held out, both ascending; V is fraction * N, rounded up.

    ValueError if fraction is not in [0, 1) or leaves a class without an image on either side.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction={fraction} is not in [0, 1)")
    if fraction == 0:
        everything = torch.arange(len(targets))
        return everything, everything[:0]
    kept, held = _parts(targets.numpy(), fraction, np.random.RandomState(derive_seed("split", seed)))
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(held))


def _parts(targets: Ints, fraction: float, random: np.random.RandomState) -> tuple[Ints, Ints]:
    """Shuffle each class: its first images are kept, those after them held out."""
    _, counts = np.unique(targets, return_counts=True)
    held = math.ceil(fraction * len(targets))
    _check(counts, held, fraction)
    keeps = _shares(counts, len(targets) - held, random)
    holds = _shares(counts - keeps, held, random)
    members = np.split(np.argsort(targets, kind="stable"), counts.cumsum()[:-1])
    orders = [images[random.permutation(len(images))] for images in members]
    return (
        np.concatenate([order[:n] for order, n in zip(orders, keeps, strict=True)]),
        np.concatenate([order[n : n + m] for order, n, m in zip(orders, keeps, holds, strict=True)]),
    )


def _check(counts: Ints, held: int, fraction: float) -> None:
    classes, images = len(counts), int(counts.sum())
    where = f"val_fraction={fraction} cannot be held out of {images} images"
    if classes == 0 or counts.min() < 2:
        raise ValueError(f"{where}: every class needs 2 images at least")
    if min(held, images - held) < classes:
        raise ValueError(f"{where}: {images - held} kept and {held} held out are too few for {classes} classes")


def _shares(counts: Ints, draws: int, random: np.random.RandomState) -> Ints:
    """How many of `draws` each class gives: in proportion, the largest remainders rounded up, ties by lot."""
    exact = counts / counts.sum() * draws
    shares = np.floor(exact)
    remainders, left = exact - shares, int(draws - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left == 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        chosen = random.choice(tied, min(left, len(tied)), replace=False)  # drawn even where all are taken
        shares[chosen] += 1
        left -= len(chosen)
    whole: Ints = shares.astype(np.int64)
    return whole
