"""The noise of weights of several tiles: resumable, each rank's its own, like the distribution."""

import itertools

import pytest
import torch
from helpers.quant_models import Bag, same_bits

from diffq_exp.quant import DiffQuantizer
from diffq_exp.quant import noise as by_torch_noise
from diffq_exp.quant.kernels import autograd as compiled
from diffq_exp.quant.kernels.cells import gaussian_cells
from diffq_exp.quant.kernels.tiles import TILE
from diffq_exp.stored.groups import CHUNK, chunks_of

LARGE = 5 * TILE // 2 + 5  # entries: three tiles, a tail of groups of 8


def large(**options):
    """One weight of several tiles, and its noise in a forward."""
    model = Bag((LARGE,))
    DiffQuantizer(model, min_size=0, **{"group_size": 8, "init_bits": 4, **options}).no_optimizer()
    return model


def noise_of(model):
    return (model()[0] - model.w0).detach()


def test_chunks_cover_each_entry_once():
    for entries in (1, 7, CHUNK, 5 * CHUNK // 2 + 5):
        for group_size in (0, 1, 2, 7, 8, CHUNK + 1):
            covered = [(where.start, where.stop) for where, _ in chunks_of(torch.empty(entries), group_size)]
            assert covered[0][0] == 0 and covered[-1][1] == entries
            assert all(one[1] == two[0] for one, two in itertools.pairwise(covered))
            assert all(start % (group_size or 1) == 0 for start, _ in covered)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_no_tile_repeats_another(kind):
    eps = noise_of(large(group_size=0, noise=kind))
    one, two = eps[: LARGE - TILE], eps[TILE:]
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 5 / len(one) ** 0.5


def test_torchs_generator_resumes_it():
    model = large()
    noise_of(model)
    state = torch.get_rng_state()
    expected = [noise_of(model) for _ in range(2)]
    torch.set_rng_state(state)
    assert all(same_bits(noise_of(model), each) for each in expected)


@pytest.mark.parametrize("by_torch", [False, True])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_each_rank_has_noise_of_its_own(kind, by_torch, monkeypatch):
    if by_torch:
        monkeypatch.setattr("diffq_exp.quant.diffq.by_kernels", lambda _: False)
    model = large(noise=kind)
    found = []
    for rank in (0, 1, 2, 1):
        for module in (by_torch_noise, compiled):
            monkeypatch.setattr(module, "rank", lambda rank=rank: rank)
        torch.manual_seed(1)
        found.append(noise_of(model))
    assert same_bits(found[1], found[3])
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(torch.corrcoef(torch.stack([found[a], found[b]]))[0, 1]) < 5 / LARGE**0.5


def test_cells_of_the_gaussian_are_those_of_the_distribution():
    """Equal probability: their borders' distribution function is even; moments up to the sixth."""
    cells = torch.from_numpy(gaussian_cells()) * 2
    assert len(cells) == 2**16 and (cells.diff() > 0).all()
    below = torch.special.ndtr(cells)
    even = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    assert (below - even).abs().max() < 2.0**-17
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        assert abs(cells.pow(power).mean() - moment) < (1e-3 if power < 5 else 5e-3) * max(moment, 1e-6), power


def test_a_weight_that_is_not_a_number_is_seen_in_the_loss():
    model = large()
    with torch.no_grad():
        model.w0[3] = float("nan")
    value = model()[0].sum()
    value.backward()
    assert value.isnan() and model.w0.grad is not None
