"""The bytes of the packed state, and of its parts."""

import torch
from helpers.quant_models import Bag
from helpers.quant_reference import Setting, logits_for

from diffq_exp.common.units import MB
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer


def tensors_of(value):
    """Every tensor somewhere in a state."""
    if torch.is_tensor(value):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in tensors_of(item)]


def test_packing_packs():
    """(bits * entries) / 8 bytes for the levels, and little besides."""
    model = Bag((4096,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=64)
    with torch.no_grad():
        model.w0_diffq.copy_(logits_for([3.0] * 64, Setting()))
    sizes = {}
    for packed in (True, False):
        tensors = tensors_of(quantizer.get_quantized_state(packed=packed))
        sizes[packed] = sum(t.numel() * t.element_size() for t in tensors)
    payload = 3 * 4096 // 8
    assert payload <= sizes[True] <= payload + 64 * 8 + 64
    assert sizes[False] >= 4096
    assert payload <= quantizer.packed_model_size() * MB <= payload + 64 + 64


def test_packed_size_of_floats_and_of_more_bits():
    sizes = {}
    for bits in (2, 15):
        for float16 in (True, False):
            model = Bag((4096,), (1000,))
            quantizer = UniformQuantizer(model, bits=bits, min_size=4 * 2000 / 2**20, float16=float16)
            sizes[bits, float16] = quantizer.packed_model_size() * MB
    assert sizes[15, False] - sizes[2, False] == 13 * 4096 // 8
    assert sizes[2, False] - sizes[2, True] == 2000
    assert 1024 + 4000 <= sizes[2, False] <= 1024 + 4000 + 64


def test_packed_size_of_scales():
    """Two float32 numbers for each uniform tensor (mn, mx), one for each of LSQ (the step)."""
    sizes = [kind(Bag(*[(64,)] * 10), bits=4, min_size=0).packed_model_size() for kind in (UniformQuantizer, LSQ)]
    assert (sizes[0] - sizes[1]) * MB == 10 * 4
