"""Order, batches, split and statistics: pure functions of numbers."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from diffq_exp.data.order import Batches, derive_seed, generator, seeded_globally, shuffled
from diffq_exp.data.pixels import channel_statistics
from diffq_exp.data.split import stratified_split


def test_seeds_depend_on_every_number_and_on_the_purpose():
    keys = [("a",), ("b",), ("a", 0), ("a", 1), ("a", 0, 0), ("a", 0, 1), ("a", 1, 0), ("a", 11), ("a", 1, 1)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)
    assert all(0 <= derive_seed(*key) < 2**32 for key in keys)


def test_seeds_do_not_change_from_release_to_release():
    # A run stored by an older version has to go on with the same order.
    assert derive_seed("order", 0, 0) == 1850829021


def test_an_order_is_a_permutation_that_seed_and_epoch_choose():
    order = shuffled(1000, seed=0, epoch=0)
    assert order.sort().values.equal(torch.arange(1000))
    assert order.equal(shuffled(1000, seed=0, epoch=0))
    assert not order.equal(shuffled(1000, seed=0, epoch=1))
    assert not order.equal(shuffled(1000, seed=1, epoch=0))


@pytest.mark.parametrize(
    ("images", "size", "fold", "lengths"),
    [
        (10, 4, True, [4, 4, 2]),
        (9, 4, True, [4, 5]),  # a single image is joined to the batch before
        (9, 4, False, [4, 4, 1]),
        (8, 4, True, [4, 4]),
        (3, 4, True, [3]),
        (1, 4, True, [1]),
        (3, 1, True, [1, 1, 1]),
    ],
)
def test_batches_cover_all_images_once(images, size, fold, lengths):
    batches = Batches(images, size, fold)
    bounds = [batches.bounds(batch) for batch in range(len(batches))]
    assert [stop - start for start, stop in bounds] == lengths
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(images))


def test_batches_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="batch_size=0 is not at least 1"):
        Batches(5, 0)
    with pytest.raises(ValueError, match="a part of the data set is empty"):
        Batches(0, 5)
    with pytest.raises(ValueError, match=r"first_batch=4 is not in 0\.\.3"):
        Batches(5, 2).starting_at(4)


def test_a_guard_gives_the_global_generator_back():
    state = torch.get_rng_state()
    with seeded_globally("image", 0, 0, 0):
        first = torch.rand(3)
    assert torch.get_rng_state().equal(state)
    with seeded_globally("image", 0, 0, 0):
        assert torch.rand(3).equal(first)


def test_own_generators_leave_the_global_ones_alone():
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    torch.rand(3, generator=generator("x", 0))
    stratified_split(torch.arange(100) % 5, 0.2, seed=0)
    assert torch.get_rng_state().equal(states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_a_split_is_stratified_disjoint_complete_and_seeded():
    targets = torch.cat([torch.zeros(100), torch.ones(50), torch.full((20,), 2)]).long()
    kept, held = stratified_split(targets, 0.2, seed=0)
    assert torch.bincount(targets[held]).tolist() == [20, 10, 4]
    assert torch.cat([kept, held]).sort().values.equal(torch.arange(170))
    assert held.equal(stratified_split(targets, 0.2, seed=0)[1])
    assert not held.equal(stratified_split(targets, 0.2, seed=1)[1])


@settings(max_examples=300, deadline=None)
@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=8),
    fraction=st.one_of(st.sampled_from([0.1, 0.2, 0.25, 1 / 3, 0.5]), st.floats(0.01, 0.9)),
    seed=st.integers(0, 2**40),
)
def test_a_split_is_that_of_scikit_learn_draw_for_draw(counts, fraction, seed):
    labels = torch.cat([torch.full((count,), 3 * label) for label, count in enumerate(counts)])
    targets = labels[torch.randperm(len(labels), generator=generator("x", seed))]
    try:
        kept, held = train_test_split(
            np.arange(len(targets)), test_size=fraction, random_state=derive_seed("split", seed), stratify=targets
        )
    except ValueError:
        with pytest.raises(ValueError, match="cannot be held out"):
            stratified_split(targets, fraction, seed)
        return
    ours, out = stratified_split(targets, fraction, seed)
    assert ours.tolist() == sorted(kept) and out.tolist() == sorted(held)


def test_a_split_of_nothing_keeps_all():
    kept, held = stratified_split(torch.arange(10), 0, seed=0)
    assert kept.equal(torch.arange(10)) and len(held) == 0


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_a_fraction_out_of_range_is_named(fraction):
    with pytest.raises(ValueError, match=r"val_fraction=.* is not in \[0, 1\)"):
        stratified_split(torch.zeros(10).long(), fraction, seed=0)


@pytest.mark.parametrize(
    ("targets", "fraction", "why"),
    [
        ([0] * 10 + [1], 0.2, r"11 images: every class needs 2"),
        ([0] * 5 + [1] * 5, 0.1, r"10 images: 9 kept and 1 held out are too few for 2 classes"),
        ([0] * 5 + [1] * 5, 0.9, r"10 images: 1 kept and 9 held out are too few for 2 classes"),
        ([], 0.5, r"0 images: every"),
    ],
)
def test_classes_too_small_to_split_are_an_error(targets, fraction, why):
    with pytest.raises(ValueError, match=rf"val_fraction={fraction} cannot be held out of {why}"):
        stratified_split(torch.tensor(targets).long(), fraction, seed=0)


def test_statistics_match_float64():
    images = torch.randint(0, 256, (20, 3, 7, 5), dtype=torch.uint8, generator=generator("x"))
    mean, std = channel_statistics(images)
    exact = (images.double() / 255).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.tensor(mean), exact.mean(1).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.tensor(std), exact.std(1, correction=0).float(), rtol=1e-6, atol=0)


def test_a_constant_channel_is_not_divided_by_zero():
    assert channel_statistics(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8)) == ((0.2,), (1.0,))
