"""Hold a validation part out of the training part, every class in its share.

Stratified, since a plain draw of a few hundred images moves the balance of classes, and with it the accuracy
that models are chosen by, from seed to seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .order import derive_seed


def stratified_split(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (N - V,) kept for training and (V,) held out, both ascending; V is about fraction * N.

    ValueError if fraction is not in [0, 1) or leaves a class without an image on either side.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"val_fraction={fraction} is not in [0, 1)")
    everything = torch.arange(len(targets))
    if fraction == 0:
        return everything, everything[:0]
    from sklearn.model_selection import train_test_split

    indices, state = everything.numpy(), derive_seed("split", seed)
    try:
        kept, held = train_test_split(indices, test_size=fraction, random_state=state, stratify=targets.numpy())
    except ValueError as error:
        where = f"val_fraction={fraction} cannot be held out of {len(targets)} images"
        raise ValueError(f"{where}: {error}") from error
    return torch.from_numpy(kept).sort().values, torch.from_numpy(held).sort().values
