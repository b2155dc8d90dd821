"""The 1,797 handwritten digits, 8 x 8 in grey, that scikit-learn carries: real data with nothing to download.

They come from the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
1998). scikit-learn marks no test part, so a third is drawn here, stratified, always by the same seed: results
of different seeds are measured on the same 599 images.
"""

from __future__ import annotations

import torch
from typing_extensions import Unpack

from .base import Data, Loading
from .split import stratified_split
from .tensors import from_tensors


def digits(*, crop: int, **loading: Unpack[Loading]) -> Data:
    """Values 0..16 become 0, 16, ... 255; mean and deviation are those of the 1,198 training images."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images = torch.from_numpy(source.images * (255 / 16)).round().to(torch.uint8)[:, None]  # (1797, 1, 8, 8)
    targets = torch.from_numpy(source.target)
    train, test = stratified_split(targets, 1 / 3, seed=0)
    return from_tensors(
        train=(images[train], targets[train]),
        test=(images[test], targets[test]),
        classes=[str(digit) for digit in range(10)],
        name="digits",
        mean=(0.3061,),
        std=(0.3762,),
        crop=crop,
        **loading,
    )
