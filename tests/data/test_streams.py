"""Streaming loaders: the same pixels for any number of workers, from any batch on."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from diffq_exp.data import from_datasets


class Made(Dataset):
    """Images of mixed sizes, as PIL images, whose target is index % 3."""

    def __init__(self, images=21, broken=None):
        self.images, self.broken = images, broken

    def __len__(self):
        return self.images

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError(f"cannot read image {index}")
        pixels = np.random.default_rng(index).integers(0, 256, (20 + index, 30, 3), np.uint8)
        return Image.fromarray(pixels), index % 3


class Tensors(Dataset):
    """The same as uint8 tensors, with their targets known beforehand."""

    targets = tuple(index % 3 for index in range(21))

    def __len__(self):
        return 21

    def __getitem__(self, index):
        return torch.from_numpy(np.asarray(Made()[index][0]).copy()).permute(2, 0, 1), self.targets[index]


def made(train=None, workers=0, **changes):
    how = {
        "classes": list("abc"),
        "name": "made",
        "image_size": 16,
        "device": "cpu",
        "batch_size": 4,
        "seed": 0,
    }
    return from_datasets(
        train=train or Made(), test=Made(6), num_workers=workers, **{**how, "flip": True, **changes}
    )


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs) > 0
    assert all(a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(ours, theirs, strict=True))


def test_workers_change_nothing_and_an_epoch_can_be_entered_late():
    plain, workers = made().train, made(workers=2).train
    assert len(plain) == 5 and [len(x) for x, _ in plain.epoch(1)] == [
        4,
        4,
        4,
        4,
        5,
    ]  # 21: the last is joined
    whole = list(plain.epoch(1))
    assert_same(workers.epoch(1), whole)
    assert_same(workers.epoch(1, first_batch=3), whole[3:])
    assert_same(plain.epoch(1, first_batch=3), whole[3:])
    next(workers.epoch(0))  # left early, as at the end of a run
    assert_same(workers.epoch(1), whole)


def test_epochs_and_seeds_differ():
    first = next(made().train.epoch(0))[0]
    assert first.shape == (4, 3, 16, 16) and first.dtype == torch.float32
    assert not first.equal(next(made().train.epoch(1))[0])
    assert not first.equal(next(made(seed=1).train.epoch(0))[0])


def test_evaluation_is_in_order_the_same_each_epoch_and_keeps_a_single_image():
    data = made(batch_size=5)
    assert data.val is None and len(data.test) == 2
    batches = list(data.test.epoch(0))
    assert torch.cat([y for _, y in batches]).tolist() == [0, 1, 2, 0, 1, 2]
    assert_same(data.test.epoch(9), batches)


def test_tensors_and_pil_images_give_the_same_evaluation():
    ours = next(made(Tensors()).train.epoch(0))
    assert ours[0].shape == (4, 3, 16, 16)
    grey = made(Tensors(), channels=1)
    assert grey.shape == (1, 16, 16) and next(grey.train.epoch(0))[0].shape == (4, 1, 16, 16)


@pytest.mark.parametrize("train", [Made(), Tensors()])
def test_the_split_is_stratified_and_disjoint(train):
    data = made(train, val_fraction=1 / 3)
    counts = [torch.bincount(torch.cat([y for _, y in part.epoch(0)])) for part in (data.train, data.val)]
    assert [c.sum().item() for c in counts] == [14, 7]
    assert (counts[0] + counts[1]).tolist() == [7, 7, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_named_in_one_line(workers):
    with pytest.raises(ValueError, match=r"^cannot read image 13$"):  # a name for it would keep the workers
        list(made(Made(broken=13), workers=workers).train.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generator_is_neither_read_nor_moved(workers):
    state = torch.get_rng_state()
    seen = list(made(workers=workers).train.epoch(0))
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert_same(made(workers=workers).train.epoch(0), seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "channels=2 is neither 1"),
        ({"image_size": 0}, "image_size=0 is not at least 1"),
        ({"min_scale": 0}, r"min_scale=0 is not in \(0, 1\]"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"val_fraction": 1.5}, r"val_fraction=1\.5"),
    ],
)
def test_a_key_out_of_range_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        made(**change)
