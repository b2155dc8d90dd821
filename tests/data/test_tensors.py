"""Loaders of tensors: what comes out, in which order, and that an epoch can be entered anywhere."""

import pytest
import torch
from torchvision.transforms import v2

from diffq_exp.data import TensorLoader, from_tensors
from diffq_exp.data.pixels import Normalise, crop_flip, random_crop_flip

HOW = {"mean": (0.4, 0.5), "std": (0.2, 0.3), "batch_size": 16, "device": "cpu"}


def made(images=50, channels=2, height=6, width=5):
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, channels, height, width), dtype=torch.uint8, generator=draws)
    return pixels, torch.arange(images) % 5


def training_loader(**changes):
    return TensorLoader(*made(), **{**HOW, "train": True, "crop": 2, "flip": True, "seed": 0, **changes})


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs)
    assert all(a.equal(c) and b.equal(d) for (a, b), (c, d) in zip(ours, theirs, strict=True))


def test_evaluation_goes_through_all_in_order_and_normalised():
    images, targets = made()
    loader = TensorLoader(images, targets, **HOW)
    batches = list(loader.epoch(7))
    assert [len(x) for x, _ in batches] == [16, 16, 16, 2] and len(loader) == 4 and loader.examples == 50
    seen = torch.cat([x for x, _ in batches])
    mean, std = torch.tensor(HOW["mean"]).view(2, 1, 1), torch.tensor(HOW["std"]).view(2, 1, 1)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, (images / 255 - mean) / std)
    assert torch.cat([y for _, y in batches]).equal(targets)
    assert_same(loader.epoch(0), batches)


def test_training_without_augmentation_shows_each_image_once():
    images, targets = made()
    seen = list(training_loader(crop=0, flip=False).epoch(3))
    x, y = torch.cat([x for x, _ in seen]), torch.cat([y for _, y in seen])
    plain = Normalise(HOW["mean"], HOW["std"], "cpu")(images)
    place = (x[:, None] == plain[None]).flatten(2).all(2).int().argmax(1)
    assert place.sort().values.equal(torch.arange(50)) and not place.equal(torch.arange(50))
    assert y.equal(targets[place]) and y.dtype == torch.int64


@pytest.mark.parametrize("first", [0, 1, 3, 4])
def test_an_epoch_entered_late_goes_on_bit_for_bit(first):
    loader = training_loader()
    assert_same(list(loader.epoch(2))[first:], training_loader().epoch(2, first_batch=first))


def test_epochs_and_seeds_differ_and_repeat():
    loader = training_loader()
    first = next(loader.epoch(0))[0]
    assert first.equal(next(training_loader().epoch(0))[0])
    assert not first.equal(next(loader.epoch(1))[0])
    assert not first.equal(next(training_loader(seed=1).epoch(0))[0])


def test_a_batch_out_of_range_is_named_at_once():
    with pytest.raises(ValueError, match=r"first_batch=5 is not in 0\.\.4"):
        training_loader().epoch(0, first_batch=5)


def test_the_global_generator_is_neither_read_nor_moved():
    state = torch.get_rng_state()
    seen = list(training_loader().epoch(0))
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    assert_same(training_loader().epoch(0), seen)


@pytest.mark.parametrize("padding", [1, 4])
def test_a_crop_is_that_of_torchvision(padding):
    images, _ = made(images=30)
    draws = torch.Generator().manual_seed(1)
    top, left = torch.randint(0, 2 * padding + 1, (2, 30), generator=draws)
    mirrored = torch.rand(30, generator=draws) < 0.5
    ours = crop_flip(images, padding, top, left, mirrored)
    for image, y, x, flip, cropped in zip(images, top.tolist(), left.tolist(), mirrored, ours, strict=True):
        expected = v2.functional.crop(v2.functional.pad(image, [padding]), y, x, 6, 5)
        expected = v2.functional.horizontal_flip(expected) if flip else expected
        assert cropped.equal(expected)


def offsets(crops):
    """Counts (2, 9, 9) of (mirrored, top, left), read off crops of `MARKED` with padding 4."""
    counts = torch.zeros(2, 9, 9)
    for image in crops:
        row, column = divmod(int(image.argmax()), 13)
        mirrored = int(image[0, row, column - 1] == 1)  # unmirrored, the 1 stands to the right of the 9
        counts[mirrored, 10 - row, 10 - (12 - column if mirrored else column)] += 1
    return counts


MARKED = torch.zeros(1, 13, 13, dtype=torch.uint8)
MARKED[0, 6, 6], MARKED[0, 6, 7] = 9, 1


def test_offsets_and_flips_are_distributed_like_torchvisions():
    draws = torch.Generator().manual_seed(0)
    ours = offsets(random_crop_flip(MARKED.expand(6480, -1, -1, -1), 4, True, draws))
    transform = v2.Compose([v2.RandomCrop(13, padding=4), v2.RandomHorizontalFlip()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = offsets(transform(MARKED) for _ in range(1620))
    for counts in (ours, theirs):  # both uniform over all 162 cells
        expected = counts.sum() / 162
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - 161) < 4 * 18  # 161 degrees of freedom, so a deviation of sqrt(2 * 161)


def test_from_tensors_builds_parts_and_measures_the_training_images():
    train, test = made(200), made(40)
    data = from_tensors(
        train=train, test=test, classes=list("abcde"), name="made", device="cpu", batch_size=32, seed=0,
        val_fraction=0.25,
    )  # fmt: skip
    assert (data.train.examples, data.val.examples, data.test.examples) == (150, 50, 40)
    assert data.shape == (2, 6, 5) and data.classes == list("abcde")
    everything = torch.cat([x for x, _ in data.train.epoch(0)]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(everything.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.std(1, correction=0), torch.ones(2), atol=1e-5, rtol=0)
    assert torch.bincount(torch.cat([y for _, y in data.val.epoch(0)])).tolist() == [10] * 5


def test_a_given_validation_part_takes_the_place_of_the_split():
    data = from_tensors(
        train=made(), test=made(), val=made(7), classes=list("abcde"), name="made", device="cpu",
        batch_size=8, seed=0, val_fraction=0.5,
    )  # fmt: skip
    assert data.train.examples == 50 and data.val.examples == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (made()[0].float(), made()[1])}, "made, train: images have to be uint8"),
        ({"test": made(width=9)}, r"made, test: images are \(2, 6, 9\), those of train \(2, 6, 5\)"),
        ({"test": (made()[0], made()[1][:-1])}, r"made, test: targets have to be integers \(50,\)"),
        ({"classes": ["a", "b"]}, r"made, train: targets are 0\.\.4, allowed are 0\.\.1 for 2 classes"),
        ({"mean": (0.5,), "std": (0.2,)}, "need a number for each of 2 channels"),
        ({"mean": (0.5, 0.5), "std": (0.2, 0.0)}, "has to be above zero"),
        ({"crop": -1}, "crop=-1 is not a padding"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {"train": made(), "test": made(), "classes": list("abcde"), "name": "made"}
    with pytest.raises(ValueError, match=message):
        from_tensors(**{**good, "device": "cpu", "batch_size": 8, "seed": 0, **change})
