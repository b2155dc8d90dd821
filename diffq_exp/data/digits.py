"""The 1,797 handwritten digits, 8 x 8 in grey, that scikit-learn carries: real data with nothing to download.

They come from the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
1998). scikit-learn marks no test part, so a third is drawn here, stratified, always by the same seed: results
of different seeds are measured on the same 599 images.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import Unpack

from .base import ImageData, Loading
from .split import stratified_split
from .tensors import from_tensors


def digits(*, crop: int, **loading: Unpack[Loading]) -> ImageData:
    """Values 0..16 become 0, 16, ... 255; mean and deviation are those of the 1,198 training images."""
    rows = _rows()
    values = torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 8, 8)
    images, targets = (values * (255 / 16)).round().to(torch.uint8), torch.from_numpy(rows[:, -1]).long()
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


def _rows() -> NDArray[np.float64]:
    """64 values and the digit of each image, (1797, 65).

    Read from scikit-learn's own file: importing the package takes 0.7 s, and its reader 10 ms.
    """
    package = find_spec("sklearn")
    file = Path(package.origin or "").parent / "datasets/data/digits.csv.gz" if package is not None else Path()
    if file.is_file():
        with gzip.open(file, "rt") as text:
            return np.loadtxt(text, delimiter=",")
    from sklearn.datasets import load_digits  # another scikit-learn may keep it elsewhere

    source = load_digits()
    return np.column_stack([source.data, source.target])
