"""A file that fits: at most the target, and nearly all of it."""

import pytest
import torch
from helpers.quant_models import Bag

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.training.target import fit, varied_floats

METHODS = {  # and the least share of the target that a file has
    "diffq": (DiffQuantizer, {"group_size": 8}, 0.97),
    "groups of one": (DiffQuantizer, {"group_size": 1}, 0.97),
    "noise": (DiffQuantizer, {"group_size": 8, "param": "noise"}, 0.97),
    "vanishing": (DiffQuantizer, {"group_size": 8, "min_bits": 0}, 0.97),
    "rate": (RateQuantizer, {"step": 0.3}, 0.97),
    "rate by channel": (RateQuantizer, {"step": 0.3, "per_channel": True}, 0.97),
    "lsq": (LSQ, {"bits": 8}, 0.97),
    "uniform": (UniformQuantizer, {"bits": 8}, 0.8),  # 7 levels or 8: files of some sizes only
}


def quantizer_of(method):
    torch.manual_seed(0)
    model = Bag((60, 50), (80, 40))
    with torch.no_grad():
        for name in model.names:
            weight = getattr(model, name)
            weight.copy_(torch.distributions.Laplace(0.0, 1.0).sample(weight.shape))
    kind, keywords, least = METHODS[method]
    quantizer = kind(model, min_size=0, **keywords)
    for name, value in quantizer.learned().items():
        if "diffq" in name:
            torch.nn.init.normal_(value, std=0.5)
    return quantizer.no_optimizer() or quantizer, least


def size_of(quantizer):
    return lambda: len(storage.serialize(quantizer))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.6, *(pytest.param(share, marks=pytest.mark.long) for share in (0.85, 1.1))])
def test_at_most_the_target_and_nearly_all_of_it(method, share):
    quantizer, least = quantizer_of(method)
    most, coded = int(share * size_of(quantizer)()), []
    size = fit(quantizer, most, lambda: coded.append(size_of(quantizer)()) or coded[-1])
    assert size == size_of(quantizer)()
    assert least * most <= size <= most
    assert len(coded) <= 8  # a file of millions of weights takes seconds


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_what_is_the_same_is_coded_once(share):
    quantizer, _ = quantizer_of("uniform")
    most, coded = share * size_of(quantizer)(), []
    fit(quantizer, most, lambda: coded.append(size_of(quantizer)()) or coded[-1])
    assert len(coded) == len(set(coded)) > 2


@pytest.mark.parametrize("method", ["diffq", "rate", "lsq", "uniform"])
def test_a_file_that_fits_is_left_alone(method):
    quantizer, _ = quantizer_of(method)
    before = {name: value.clone() for name, value in quantizer.learned().items()}
    size = size_of(quantizer)()
    for most in (size, int(size / 0.99), 10 * size):  # the last one is larger than finer steps would need
        assert fit(quantizer, most, size_of(quantizer)) == size
    assert quantizer.coarsened == 0
    assert all(torch.equal(value, before[name]) for name, value in quantizer.learned().items())


def test_only_coarser_leaves_a_smaller_file_alone():
    quantizer, _ = quantizer_of("rate")
    size = size_of(quantizer)()
    assert fit(quantizer, int(1.2 * size), size_of(quantizer), finer=False) == size
    assert fit(quantizer, int(0.9 * size), size_of(quantizer), finer=False) <= 0.9 * size


@pytest.mark.parametrize("method", ["diffq", "rate", "lsq", "uniform"])
def test_out_of_reach_it_stays_as_it_was(method):
    quantizer, _ = quantizer_of(method)
    size = size_of(quantizer)()
    assert fit(quantizer, 10, size_of(quantizer)) == size == size_of(quantizer)()
    assert quantizer.coarsened == 0


def test_far_too_small_a_file_is_refined():
    quantizer, _ = quantizer_of("rate")
    size = size_of(quantizer)()
    quantizer.coarsen(4.5)
    assert size_of(quantizer)() < size / 5
    assert 0.97 * size <= fit(quantizer, size, size_of(quantizer)) <= size


def test_lsq_that_was_coarsened_is_as_one_of_that_width():
    """Not a few levels over the range of many: the same step as LSQ begins with."""
    quantizer, _ = quantizer_of("lsq")
    quantizer.coarsen(5)
    torch.manual_seed(0)
    model = Bag((60, 50), (80, 40))
    with torch.no_grad():
        for name in model.names:
            getattr(model, name).copy_(getattr(quantizer.model, name))
    LSQ(model, bits=3, min_size=0).no_optimizer()
    for value, expected in zip(quantizer.model.eval()(), model.eval()(), strict=True):
        torch.testing.assert_close(value, expected)


def test_floats_vary_only_inside():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    quantizer = RateQuantizer(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with varied_floats(model, quantizer):
        assert not torch.equal(model[1].running_var, before["1.running_var"]) and (model[1].running_var > 0).all()
        assert torch.equal(model[0].weight, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
