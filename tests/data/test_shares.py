"""Shares of batches: together they are the batch, for each kind of loader, and none is read twice."""

import pytest
import torch
from torch.utils.data import TensorDataset

from diffq_exp.data import Share, StreamLoader, TensorLoader, WindowLoader, share_of
from diffq_exp.data.shares import CutLoader

IMAGES = torch.arange(11 * 3 * 4 * 4, dtype=torch.int64).remainder(251).to(torch.uint8).view(11, 3, 4, 4)
TARGETS = torch.arange(11)
PIXELS = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "batch_size": 4, "device": "cpu", "seed": 3}


class Counting(TensorDataset):
    """Counts what is read."""

    def __init__(self):
        super().__init__(IMAGES, TARGETS)
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


class Plain:
    """A loader that knows nothing of shares."""

    examples, batch_size = 11, 4

    def __len__(self):
        return 3

    def epoch(self, epoch, first_batch=0):
        for start in range(4 * first_batch, 11, 4):
            yield IMAGES[start : start + 4].float(), TARGETS[start : start + 4]


LOADERS = {
    "augmented": lambda: TensorLoader(IMAGES, TARGETS, train=True, crop=1, flip=True, **PIXELS),
    "in_order": lambda: TensorLoader(IMAGES, TARGETS, **PIXELS),
    "streamed": lambda: StreamLoader(Counting(), lambda image: image, train=True, **PIXELS),
    "windows": lambda: WindowLoader(torch.arange(60), length=4, batch_size=4, device="cpu", seed=1, train=True),
    "windows_in_order": lambda: WindowLoader(
        torch.arange(54), length=4, batch_size=4, device="cpu", seed=1, train=False
    ),
    "plain": Plain,
}


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("kind", LOADERS)
def test_shares_of_a_batch_are_the_batch(kind, world):
    whole = LOADERS[kind]()
    shares = [share_of(whole, Share(rank, world)) for rank in range(world)]
    assert all(len(share) == len(whole) and share.examples == whole.examples for share in shares)
    for first in (0, 2):
        batches = list(whole.epoch(1, first))
        for number, parts in enumerate(zip(*(share.epoch(1, first) for share in shares), strict=True)):
            for place in (0, 1):
                kept = [part[place] for part in parts if len(part[0])]
                assert torch.equal(torch.cat(kept), batches[number][place])


def test_an_image_is_read_by_one_process_only():
    data = [Counting(), Counting()]
    loaders = [
        share_of(StreamLoader(each, lambda image: image, train=True, **PIXELS), Share(rank, 2))
        for rank, each in enumerate(data)
    ]
    for loader in loaders:
        list(loader.epoch(0))
    assert sorted(data[0].read + data[1].read) == list(range(11))


def test_a_share_has_enough_examples_or_none():
    cuts = [Share(rank, 4, least=2).cut(10, 15) for rank in range(4)]
    assert cuts == [(10, 12), (12, 15), (15, 15), (15, 15)]
    assert Share(0, 4, least=2).cut(10, 11) == (10, 11)


def test_one_process_has_the_loader_itself():
    plain = Plain()
    assert share_of(plain, Share()) is plain and isinstance(share_of(plain, Share(1, 2)), CutLoader)
