"""A stored tensor with one bit less."""

import pytest
import torch

from diffq_exp.stored.coarser import coarser
from diffq_exp.stored.grids import check_stored, store_minmax, store_step

WEIGHT = torch.tensor([[-1.0, -0.4, 0.1, 0.3], [0.0, 0.55, 0.8, 1.0]])


def widths(*bits):
    return torch.tensor(bits, dtype=torch.uint8)


def test_steps_are_twice_as_large():
    less = coarser(store_step(WEIGHT, torch.tensor([0.1]), 5))
    check_stored("w", less)
    assert less.scales == pytest.approx(0.2) and less.bits == 5
    torch.testing.assert_close(less.values(), (WEIGHT.div(0.1).round().div(2).round() * 0.2))


def test_each_channel_has_its_own():
    less = coarser(store_step(WEIGHT, torch.tensor([0.1, 0.3]), 5))
    torch.testing.assert_close(less.scales, torch.tensor([0.2, 0.6]))
    assert less.values()[1].div(0.6).round().mul(0.6).allclose(less.values()[1])


@pytest.mark.parametrize(("bits", "after"), [((3, 2), (2, 1)), ((1, 4), (0, 3)), ((0, 1), (0, 0))])
def test_groups_lose_a_bit_each_and_no_more_than_they_have(bits, after):
    stored = store_minmax(WEIGHT, widths(*bits), 4, 4)
    less = coarser(stored)
    check_stored("w", less)
    assert less.bits.tolist() == list(after) and torch.equal(less.scales, stored.scales)
    for row, width in zip(less.values(), after, strict=True):
        assert len(row.unique()) <= 2**width
    assert (less.values() - stored.values()).abs().max() <= 2 / (2 ** min(after) - 1 or 1)


@pytest.mark.parametrize(("top", "after"), [(5, 2), (2, 1), (1, 0)])
def test_a_highest_level_is_halved(top, after):
    less = coarser(store_minmax(WEIGHT, widths(top.bit_length()), 0, 3, top))
    check_stored("w", less)
    assert int(less.levels.max()) == after and (less.top or 0) == after
    assert len(less.values().unique()) <= after + 1


def test_ranges_by_channel_stay():
    ranges = torch.tensor([[-1.0, 0.3], [0.0, 1.0]])
    less = coarser(store_minmax(WEIGHT, widths(3), 0, 3, ranges=ranges))
    check_stored("w", less)
    assert torch.equal(less.scales, ranges.view(-1)) and less.bits == 2
