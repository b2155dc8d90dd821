"""Sizes in MB, and how a quantizer shows itself."""

import copy

import pytest
from helpers.quant_models import Bag, Net
from torch import nn

from diffq_exp import storage
from diffq_exp.common.units import MB
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.quant.noise import Uniform


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_compressed_size_is_about_the_packed_size(kind):
    quantizer = kind(Bag((64, 300)), min_size=0)
    size = quantizer.compressed_model_size()
    assert 0.5 * quantizer.packed_model_size() < size < quantizer.packed_model_size() + 4096 / MB


def test_fewer_bits_make_a_smaller_file():
    sizes = [UniformQuantizer(Bag((64, 300)), bits=bits, min_size=0).compressed_model_size() for bits in (2, 8)]
    assert sizes[0] < 0.5 * sizes[1]


def test_nothing_to_quantize_has_a_size_too():
    quantizer = DiffQuantizer(Net(), min_size=10)
    assert quantizer.compressed_model_size() * MB >= 4 * sum(p.numel() for p in Net().parameters())


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ, RateQuantizer])
def test_all_sizes_are_in_mb(kind):
    quantizer = kind(Bag((64, 300)), min_size=0)
    assert quantizer.compressed_model_size() == len(storage.serialize(quantizer)) / MB
    assert quantizer.packed_model_size() == quantizer.stored_model().packed_bytes() / MB
    others = (quantizer.model_size().detach(), quantizer.true_model_size(), quantizer.packed_model_size())
    assert all(isinstance(size, float) for size in others[1:])
    assert all(0.3 < quantizer.compressed_model_size() / float(size) < 3 for size in others)


# ---- repr ------------------------------------------------------------------------------------------------------


class Own(UniformQuantizer):
    def __init__(self, model, angle=1, **others):
        super().__init__(model, **others)


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (lambda m: DiffQuantizer(m, 0, group_size=8), "DiffQuantizer(min_size=0, group_size=8, 1 tensors, "),
        (lambda m: DiffQuantizer(m, min_size=0, min_bits=2.0, exclude=[]), "DiffQuantizer(min_size=0, 1 tensors, "),
        (lambda m: DiffQuantizer(model=m, noise=Uniform()), "DiffQuantizer(noise=Uniform(), 1 tensors, "),
        (lambda m: DiffQuantizer(m, noise="uniform", float16=True), "(float16=True, noise='uniform', 1 tensors, "),
        (lambda m: UniformQuantizer(m, 4.0, qat=True), "UniformQuantizer(bits=4, qat=True, 1 tensors, "),
        (
            lambda m: UniformQuantizer(m, bits=8),
            "UniformQuantizer(1 tensors, 19,200 of 19,200 entries, mean 8",
        ),
        (lambda m: LSQ(m, bits=3, exclude=["*.bias", "w9"]), "LSQ(bits=3, exclude=['*.bias', 'w9'], 1 tensors, "),
        (lambda m: RateQuantizer(m, step=0.5, per_channel=True), "RateQuantizer(step=0.5, per_channel=True, 1 t"),
        (lambda m: Own(m, 2, bits=3, qat=False), "Own(angle=2, bits=3, qat=False, 1 tensors, "),
    ],
)
def test_it_shows_the_arguments_that_are_not_the_defaults(make, shown):
    quantizer = make(Bag((64, 300)))
    assert shown in repr(quantizer) and repr(quantizer).endswith(" MB)")
    assert repr(copy.deepcopy(quantizer)) == repr(quantizer)


def test_wrong_arguments_are_refused_as_before():
    for arguments in ({}, {"model": Net(), "nosuch": 1}):
        with pytest.raises(TypeError):
            DiffQuantizer(**arguments)


def test_arguments_of_a_subclass_are_shown_by_their_names():
    class Handing(UniformQuantizer):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)

    class Stronger(UniformQuantizer):
        def __init__(self, strength, model):
            super().__init__(model, min_size=0)

    assert repr(Handing(model=nn.Linear(8, 8), min_size=0)).startswith("Handing(min_size=0, 2 tensors")
    assert repr(Stronger(3, nn.Linear(8, 8))).startswith("Stronger(strength=3, ")


def test_a_quantizer_that_is_detached_can_be_looked_at():
    quantizer = DiffQuantizer(nn.Linear(8, 8), min_size=0)
    quantizer.detach()
    assert len(quantizer.base_parameters()) == 2 and quantizer.learned() == {}
    assert repr(quantizer) == "DiffQuantizer(min_size=0, detached)"


def test_base_parameters_of_a_whole_that_is_empty_by_its_length():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def __len__(self):
            return 0

    whole = Whole()
    assert len(DiffQuantizer(whole.net, min_size=0).base_parameters(whole)) == 4
