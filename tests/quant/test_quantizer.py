"""The bytes of the file that stores a model."""

import pytest
from helpers.quant_models import Bag, Net

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_compressed_size_is_about_the_packed_size(kind):
    quantizer = kind(Bag((64, 300)), min_size=0)
    size = quantizer.compressed_model_size()
    assert isinstance(size, int)
    assert 0.5 * quantizer.packed_model_size() < size < quantizer.packed_model_size() + 4096


def test_fewer_bits_make_a_smaller_file():
    sizes = [UniformQuantizer(Bag((64, 300)), bits=bits, min_size=0).compressed_model_size() for bits in (2, 8)]
    assert sizes[0] < 0.5 * sizes[1]


def test_nothing_to_quantize_has_a_size_too():
    quantizer = DiffQuantizer(Net(), min_size=10)
    assert quantizer.compressed_model_size() >= 4 * sum(p.numel() for p in Net().parameters())
