"""Images a second of our loader and of a DataLoader with torchvision's transforms, which crop and flip alike.

Both give shuffled, cropped, flipped, normalised float32 batches of 128 from the same made images of CIFAR-10's
shape. The DataLoader has what one has for CIFAR-10: PIL images, two workers that stay, and the epoch counted is not
its first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from diffq_exp.data import Loader, from_tensors

from .common import Context, Part, Rounds, Row, Spread, over

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SIDE, PADDING, BATCH = 32, 4, 128
PLACES = 2 * PADDING + 1  # of the window, each way
OUTCOMES = PLACES * PLACES * 2
TIMES = 10.0  # at least so many times the DataLoader's images a second
ODD = 4.0  # standard deviations of chi square; one in 30,000 honest draws goes beyond


@dataclass(frozen=True)
class Amounts:
    """images: of an epoch; crops: drawn to compare the distributions."""

    images: int
    crops: int
    rounds: Rounds
    workers: int = 2


FULL = Amounts(images=20_000, crops=30_000, rounds=Rounds(warm=1, least=3, most=7, seconds=30))
QUICK = Amounts(images=600, crops=1000, rounds=Rounds(warm=1, least=2, most=2, seconds=0))


class AsCifar(Dataset[Any]):
    """uint8 images as PIL's, transformed one by one, like torchvision.datasets.CIFAR10."""

    def __init__(self, images: Tensor, transform: Any) -> None:
        self.images, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % 10


def data_path(context: Context) -> Part:
    """Rows of speed and of likeness; diffq has no data."""
    amounts = QUICK if context.quick else FULL
    context.say(f"data path, {amounts.images} images an epoch")
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (amounts.images, 3, SIDE, SIDE), dtype=torch.uint8, generator=source)
    sides = {"here": our_epochs(images), "torchvision": their_epochs(images, amounts.workers)}
    seconds = amounts.rounds.run({name: partial(drained, side) for name, side in sides.items()})
    rates = {name: [amounts.images / one for one in values] for name, values in seconds.items()}
    times = over(rates["here"], rates["torchvision"])
    shown = [f"{Spread.of(rates[name]).median:,.0f} images/s" for name in sides]
    speed = Row(
        f"data path, {amounts.workers} workers beside: images a second, times torchvision's",
        f"{times.show(' x')}: {shown[0]} against {shown[1]}",
        goal=f">= {TIMES:g}",
        met=times.median >= TIMES,
        detail={"ratio": asdict(times), "images_per_second": rates},
    )
    return Part([speed, *likeness(amounts.crops)])


def our_epochs(images: Tensor) -> Iterable[Any]:
    loader = our_loader(images, MEAN, STD)

    class Epochs:
        """A new epoch each time, as a DataLoader has it."""

        at = 0

        def __iter__(self) -> Any:
            self.at += 1
            return loader.epoch(self.at)

    return Epochs()


def our_loader(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Loader:
    part = (images, torch.arange(len(images)) % 10)
    return from_tensors(
        train=part, test=(images[:1], part[1][:1]), classes=[str(at) for at in range(10)], name="made", mean=mean,
        std=std, device="cpu", batch_size=BATCH, seed=0, crop=PADDING, flip=True,
    ).train  # fmt: skip


def their_transform(mean: tuple[float, ...], std: tuple[float, ...]) -> Any:
    return transforms.Compose(
        [
            transforms.RandomCrop(SIDE, PADDING),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def their_epochs(images: Tensor, workers: int) -> Iterable[Any]:
    dataset = AsCifar(images, their_transform(MEAN, STD))
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def drained(epochs: Iterable[Any]) -> float:
    """Seconds of an epoch whose batches are looked at and dropped."""
    started = time.perf_counter()
    for images, _ in epochs:
        assert images.dtype == torch.float32
    return time.perf_counter() - started


# ---- the same crops and flips -----------------------------------------------------------------------------------


def marked(count: int) -> Tensor:
    """uint8 (count, 3, 32, 32): a pixel says its row, its column (from 1), and 1; padding will be all zero."""
    along = torch.arange(1, SIDE + 1, dtype=torch.uint8)
    one = torch.stack([along[:, None].expand(SIDE, SIDE), along.expand(SIDE, SIDE), torch.ones(SIDE, SIDE).byte()])
    return one.expand(count, 3, SIDE, SIDE).contiguous()


def outcomes(crops: Tensor) -> Tensor:
    """(N,) int64 in range(162): window and flip of each crop (N, 3, 32, 32) of a marked image.

    Raises: ValueError when a crop is not, in each of its pixels, the crop and flip that its middle tells.
    """
    crops, half = crops.round().long(), SIDE // 2
    mirrored = crops[:, 1, half, half] < crops[:, 1, half, half - 1]
    top = crops[:, 0, half, half] - 1 - half + PADDING
    left = torch.where(mirrored, crops[:, 1, half, half - 1], crops[:, 1, half, half]) - 1 - half + PADDING
    expected = torch.nn.functional.pad(marked(1)[0].long(), (PADDING,) * 4)
    found = (top * PLACES + left) * 2 + mirrored
    for outcome in torch.unique(found).tolist():
        place, flip = divmod(outcome, 2)
        row, column = divmod(place, PLACES)
        window = expected[:, row : row + SIDE, column : column + SIDE]
        if not (crops[found == outcome] == (window.flip(-1) if flip else window)).all():
            raise ValueError(f"not the window at ({row}, {column}) of the padded image")
    return found


def unevenness(found: Tensor) -> float:
    """Standard deviations of chi square above what even draws of the 162 outcomes give."""
    counts = torch.bincount(found, minlength=OUTCOMES).double()
    mean = len(found) / OUTCOMES
    freedom = OUTCOMES - 1
    return (float(((counts - mean) ** 2 / mean).sum()) - freedom) / math.sqrt(2 * freedom)


def likeness(crops: int) -> list[Row]:
    """A row of how evenly both draw windows and flips, image by image."""
    images, zero, one = marked(crops), (0.0,) * 3, (1.0 / 255,) * 3  # back to the marks by a normalisation
    ours = [batch for batch, _ in our_loader(images, zero, one).epoch(1)]
    transform = their_transform(zero, one)
    picture = Image.fromarray(images[0].permute(1, 2, 0).contiguous().numpy())
    theirs = torch.stack([transform(picture) for _ in range(crops)])
    found = {"here": outcomes(torch.cat(ours)), "torchvision": outcomes(theirs)}
    odd = {name: unevenness(one) for name, one in found.items()}
    kinds = {name: _kinds_in_a_batch(one) for name, one in found.items()}
    met = all(abs(value) < ODD for value in odd.values()) and abs(kinds["here"] / kinds["torchvision"] - 1) < 0.05
    row = Row(
        f"data path: {crops} crops and flips over the {OUTCOMES} possible, chi square off even draws",
        f"{odd['here']:+.1f} sd, torchvision {odd['torchvision']:+.1f} sd; {kinds['here']:.0f} and "
        f"{kinds['torchvision']:.0f} different ones in a batch",
        goal=f"within {ODD:g} sd, and as many in a batch",
        met=met,
        detail={"unevenness": odd, "kinds_in_a_batch": kinds},
    )
    return [row]


def _kinds_in_a_batch(found: Tensor) -> float:
    """Mean number of different outcomes among the images of a whole batch: few if a batch shared its draws."""
    batches = found[: len(found) // BATCH * BATCH].view(-1, BATCH)
    return sum(len(torch.unique(batch)) for batch in batches) / len(batches)
