"""Larger sets: images are read, decoded and augmented by DataLoader workers and normalised on the device.

A sampler hands the workers (epoch, index) pairs. With these a worker seeds the transforms of each image anew,
so that the pixels depend neither on the number of workers nor on earlier reads, and workers can stay
alive from epoch to epoch. Batches travel as uint8, a quarter of the bytes of float32.
"""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from .base import ImageData
from .class_folders import check_channels
from .digest import of_folders
from .order import Batches, generator, seeded_globally, shuffled
from .pixels import IMAGENET_MEAN, IMAGENET_STD, Normalise, checked_statistics
from .shares import WHOLE, Share
from .split import stratified_split

Order: TypeAlias = Callable[[int, int], Tensor]
Images: TypeAlias = Dataset[tuple[Any, int]]  # map-style: (PIL image or uint8 (C, H, W) tensor, target)


class StreamLoader:
    """Batches of a map-style dataset; see `Loader` for the protocol.

    `transform` turns an image into uint8 (C, H, W). With `train`, the order is drawn from (seed, epoch), the
    transform draws from (seed, epoch, index), and a last batch of a single image is joined to the batch before.
    """

    def __init__(
        self,
        dataset: Images,
        transform: Callable[[Any], Tensor],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device | str,
        num_workers: int = 0,
        seed: int = 0,
        train: bool = False,
    ) -> None:
        self.examples, self.batch_size = len(dataset), batch_size  # type: ignore[arg-type]
        self._device = torch.device(device)
        self._normalise = Normalise(mean, std, device)
        self._samples, self._workers = _Samples(dataset, transform, seed), num_workers
        order = getattr(dataset, "order", None) if train else None
        self._read_by(_Plan(Batches(self.examples, batch_size, fold_single=train), seed, train, order))

    def _read_by(self, plan: _Plan) -> None:
        """Make the workers, which start with the first epoch."""
        self._plan = plan
        self._loader: DataLoader[object] = DataLoader(
            self._samples,
            batch_sampler=plan,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            worker_init_fn=_leave_interrupts_to_parent,
            collate_fn=_collate,
            pin_memory=self._device.type == "cuda",
            generator=generator("workers", plan.seed),  # else it draws from the global generator
        )

    def share(self, share: Share) -> StreamLoader:
        """See `Shareable`: no other images are read, by workers of its own."""
        part = copy.copy(self)
        plan = self._plan
        part._read_by(_Plan(plan.batches, plan.seed, plan.train, plan.order, share))
        return part

    def __len__(self) -> int:
        return len(self._plan)

    def normalise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._normalise = Normalise(mean, std, self._device)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return self._read(epoch, self._plan.batches.starting_at(first_batch))

    def _read(self, epoch: int, batches: range) -> Iterator[tuple[Tensor, Tensor]]:
        self._plan.epoch, self._plan.wanted = epoch, batches
        for batch in self._loader:
            if isinstance(batch, ValueError):
                raise ValueError(str(batch))  # a new one: a name for it would keep this frame, and so the workers
            images, targets = (part.to(self._device, non_blocking=True) for part in batch)
            yield self._normalise(images) if len(images) else images.float(), targets


class _Plan:
    """The batch sampler: lists of (epoch, index) for the batches that `wanted` names.

    order: from (seed, epoch) to a permutation, for a dataset that is not read at random at no cost.
    """

    def __init__(
        self, batches: Batches, seed: int, train: bool, order: Order | None = None, share: Share = WHOLE
    ) -> None:
        self.batches, self.seed, self.train, self.share = batches, seed, train, share
        self.order = order or partial(shuffled, batches.examples)
        self.epoch, self.wanted = 0, batches.starting_at(0)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch if self.train else 0
        order = self.order(self.seed, epoch) if self.train else torch.arange(self.batches.examples)
        for batch in self.wanted:
            start, stop = self.share.cut(*self.batches.bounds(batch))
            yield [(epoch, index) for index in order[start:stop].tolist()]


class _Samples(Dataset[Any]):
    """(epoch, index) -> (uint8 (C, H, W), target), or a ValueError met, which `_read` raises.

    Handed over rather than raised: a DataLoader would wrap it in the traceback of a worker, and the line
    that names the file would be lost in it. Other exceptions are bugs and keep their tracebacks.
    """

    def __init__(self, dataset: Images, transform: Callable[[Any], Tensor], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | ValueError:
        epoch, index = key
        try:
            with seeded_globally("image", self.seed, epoch, index):
                image, target = self.dataset[index]
                return self.transform(image), int(target)
        except ValueError as error:
            return error


def _collate(samples: list[tuple[Tensor, int] | ValueError]) -> tuple[Tensor, Tensor] | ValueError:
    pairs = []
    for sample in samples:
        if isinstance(sample, ValueError):
            return sample
        pairs.append(sample)
    if not pairs:  # a share without an example
        return torch.empty(0, 1, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
    return torch.stack([image for image, _ in pairs]), torch.tensor([target for _, target in pairs])


def _leave_interrupts_to_parent(_worker: int) -> None:
    """Ctrl-C, and Slurm's SIGUSR2, reach all processes; the trainer decides how to end."""
    for number in (signal.SIGINT, getattr(signal, "SIGUSR2", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)


class _Resized:
    """PIL image or uint8 tensor of any size -> uint8 (channels, image_size, image_size)."""

    def __init__(self, image_size: int, channels: int, train: bool, flip: bool, min_scale: float) -> None:
        from torchvision.transforms import v2

        if train:
            steps = [v2.RandomResizedCrop(image_size, scale=(min_scale, 1.0))]
            steps += [v2.RandomHorizontalFlip()] if flip else []
        else:  # the customary margin of evaluation on ImageNet
            steps = [v2.Resize(round(image_size * 256 / 224)), v2.CenterCrop(image_size)]
        colour = v2.RGB() if channels == 3 else v2.Grayscale()
        self.steps = v2.Compose([colour, *steps, v2.ToImage(), v2.ToPureTensor()])

    def __call__(self, image: object) -> Tensor:
        resized: Tensor = self.steps(image)
        return resized


def from_datasets(
    *,
    train: Images,
    test: Images,
    val: Images | None = None,
    classes: Sequence[str],
    name: str,
    image_size: int,
    channels: int = 3,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    min_scale: float = 0.08,
    device: torch.device | str,
    batch_size: int,
    seed: int,
    val_fraction: float = 0.0,
    flip: bool = False,
    num_workers: int = 0,
    digest: Mapping[str, str] | None = None,
) -> ImageData:
    """A `Data` from map-style datasets that yield (PIL image or uint8 (C, H, W) tensor, target).

    Training sees RandomResizedCrop (of at least `min_scale` of the area) and flip, evaluation a resize and a
    centre crop, both to `image_size` pixels squared. The split reads `train.targets` if it exists, else
    each target once. Without `mean` and `std`, ImageNet's are used (their average for one channel). A dataset with
    a method order(seed, epoch) is read in that order. digest: as digest.py makes it; of image folders it is made.
    """
    _check(channels, image_size, min_scale)
    if mean is None or std is None:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.449,), (0.226,))
    mean, std = checked_statistics(mean, std, channels)
    parts = {"train": train, "test": test} | ({"val": val} if val is not None else {})
    digest = of_folders(parts) if digest is None else digest
    if val is None and val_fraction != 0:
        kept, held = stratified_split(_targets(train), val_fraction, seed)
        parts |= {"train": Subset(train, kept.tolist()), "val": Subset(train, held.tolist())}
    loaders = {
        part: StreamLoader(
            images, _Resized(image_size, channels, part == "train", flip, min_scale), mean=mean, std=std,
            batch_size=batch_size, device=device, num_workers=num_workers, seed=seed, train=part == "train",
        )
        for part, images in parts.items()
    }  # fmt: skip
    shape = (channels, image_size, image_size)
    return ImageData(name, classes=classes, shape=shape, mean=mean, std=std, digest=digest, **loaders)


def _check(channels: int, image_size: int, min_scale: float) -> None:
    check_channels(channels)
    if image_size < 1:
        raise ValueError(f"image_size={image_size} is not at least 1")
    if not 0 < min_scale <= 1:
        raise ValueError(f"min_scale={min_scale} is not in (0, 1]")


def _targets(dataset: Images) -> Tensor:
    targets = getattr(dataset, "targets", None)
    if targets is None:
        targets = [int(dataset[index][1]) for index in range(len(dataset))]  # type: ignore[arg-type]
    return torch.as_tensor(targets)
