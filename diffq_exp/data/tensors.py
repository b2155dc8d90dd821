"""Small images: the whole part lives on the training device as uint8, and each batch is augmented there.

CIFAR-10 takes 150 MB so. A batch costs a few kernels instead of 128 trips through PIL and a queue: there are
no workers to start, to feed or to kill, and a loader has no state to save.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .base import ImageData
from .digest import of_tensors
from .order import Batches, generator, shuffled
from .pixels import Normalise, channel_statistics, checked_statistics, random_crop_flip
from .shares import WHOLE, Share
from .split import stratified_split

Part = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8, targets (N,) integers


class TensorLoader:
    """Batches of a uint8 tensor of images; see `Loader` for the protocol.

    With `train`, the order is drawn from (seed, epoch), crop and flip from (seed, epoch, batch), and a last
    batch of a single image is joined to the batch before. Without it, all images come in order, as they are.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device | str,
        seed: int = 0,
        train: bool = False,
        crop: int = 0,
        flip: bool = False,
    ) -> None:
        """`images` (N, C, H, W) uint8 and `targets` (N,) go to `device`; `crop` is the padding in pixels."""
        if crop < 0:
            raise ValueError(f"crop={crop} is not a padding of 0 or more pixels")
        self.examples, self.batch_size = len(images), batch_size
        self._batches = Batches(len(images), batch_size, fold_single=train)
        self._pixels, self._targets = images.to(device), targets.to(device, torch.int64)
        self._normalise = Normalise(mean, std, device)
        self._seed, self._train, self._crop, self._flip = seed, train, crop, flip
        self._share = WHOLE

    def share(self, share: Share) -> TensorLoader:
        """See `Shareable`; the images stay where they are."""
        part = copy.copy(self)
        part._share = share
        return part

    def __len__(self) -> int:
        return len(self._batches)

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._normalise = Normalise(mean, std, self._pixels.device)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        batches = self._batches.starting_at(first_batch)
        return self._shuffled(epoch, batches) if self._train else self._in_order(batches)

    def _shuffled(self, epoch: int, batches: range) -> Iterator[tuple[Tensor, Tensor]]:
        order = shuffled(self.examples, self._seed, epoch).to(self._pixels.device)
        for batch in batches:
            begin, end = self._batches.bounds(batch)
            start, stop = self._share.cut(begin, end)
            chosen = order[start:stop]
            images = self._pixels.index_select(0, chosen)
            draws = generator("augment", self._seed, epoch, batch)
            images = random_crop_flip(images, self._crop, self._flip, draws, (start - begin, end - begin))
            yield self._normalise(images), self._targets.index_select(0, chosen)

    def _in_order(self, batches: range) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            start, stop = self._share.cut(*self._batches.bounds(batch))
            yield self._normalise(self._pixels[start:stop]), self._targets[start:stop]


def from_tensors(
    *,
    train: Part,
    test: Part,
    val: Part | None = None,
    classes: Sequence[str],
    name: str,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str,
    batch_size: int,
    seed: int,
    val_fraction: float = 0.0,
    crop: int = 0,
    flip: bool = False,
    num_workers: int = 0,
) -> ImageData:
    """A `Data` from parts (images (N, C, H, W) uint8, targets (N,) integers from 0 to len(classes) - 1).

    A given `val` takes the place of the split. Without `mean` and `std`, those of the images left for
    training are used. `num_workers` is taken, so that every source can be called alike, and not used.
    """
    parts = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    for part, (images, targets) in parts.items():
        _check(f"{name}, {part}", images, targets, len(classes), train[0].shape[1:])
    digest = {part: of_tensors(*tensors, names=classes) for part, tensors in parts.items()}
    if val is None:
        kept, held = stratified_split(train[1], val_fraction, seed)
        if len(held):
            parts |= {"train": _take(train, kept), "val": _take(train, held)}
    if mean is None or std is None:
        mean, std = channel_statistics(parts["train"][0])
    channels, height, width = train[0].shape[1:]
    mean, std = checked_statistics(mean, std, channels)
    loaders = {
        part: TensorLoader(
            *tensors, mean=mean, std=std, batch_size=batch_size, device=device, seed=seed, train=part == "train",
            crop=crop, flip=flip,
        )
        for part, tensors in parts.items()
    }  # fmt: skip
    shape = (channels, height, width)
    return ImageData(name, classes=classes, shape=shape, mean=mean, std=std, digest=digest, **loaders)


def _take(part: Part, index: Tensor) -> Part:
    return part[0][index], part[1][index]


def _check(where: str, images: Tensor, targets: Tensor, classes: int, shape: torch.Size) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        given = f"{images.dtype} {tuple(images.shape)}"
        raise ValueError(f"{where}: images have to be uint8 (N, C, H, W), not {given}")
    if images.shape[1:] != shape:
        raise ValueError(f"{where}: images are {tuple(images.shape[1:])}, those of train {tuple(shape)}")
    if targets.shape != (len(images),) or targets.is_floating_point():
        given = f"{targets.dtype} {tuple(targets.shape)}"
        raise ValueError(f"{where}: targets have to be integers ({len(images)},), one per image, not {given}")
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        given = f"{int(targets.min())}..{int(targets.max())}"
        raise ValueError(f"{where}: targets are {given}, allowed are 0..{classes - 1} for {classes} classes")
