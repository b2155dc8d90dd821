"""size=coded for DiffQ: the bytes that the coder will spend; and widths below one bit, down to a single value."""

import pytest
import torch
from helpers.quant_models import Bag
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer
from diffq_exp.quant.bits import PARAMS, logits_of
from diffq_exp.quant.coded_widths import coded_bits_of_widths
from diffq_exp.quant.noise import noise_of
from diffq_exp.quant.noisy_weights import add_fading_noise, add_noise
from diffq_exp.quant.size import CodedSize
from diffq_exp.storage.ledger import ledger
from diffq_exp.stored.grids import store_minmax


def heavy_tailed(*shapes):
    """A Bag with Laplace weights, as trained networks have."""
    model = Bag(*shapes)
    with torch.no_grad():
        for name in model.names:
            weight = getattr(model, name)
            weight.copy_(torch.distributions.Laplace(0.0, 1.0).sample(weight.shape))
    return model


def coded_bytes(quantizer, folder):
    """Bytes of the file for levels, widths, scales and models."""
    storage.save(quantizer, folder / "model.safetensors")
    rows = [row for row in ledger(folder / "model.safetensors") if row.name in quantizer.quantized_names]
    return sum(row.levels + row.bits + row.scales + row.models for row in rows)


@pytest.mark.parametrize("group_size", [0, 1, 8])
@pytest.mark.parametrize(("spread", "within"), [(0.0, 0.03), (0.5, 0.03), (2.0, 0.08)])
@pytest.mark.parametrize("min_bits", [0, 2])
def test_the_value_is_what_the_coder_spends(group_size, spread, within, min_bits, tmp_path):
    model = heavy_tailed((100, 50), (64, 32, 3, 3))
    quantizer = DiffQuantizer(model, min_size=0, group_size=group_size, min_bits=min_bits, init_bits=4)
    for logits in quantizer.learned().values():
        nn.init.normal_(logits, mean=float(logits.detach().mean()), std=spread)
    estimate = float(quantizer.coded_bits().detach()) / 8
    assert estimate == pytest.approx(coded_bytes(quantizer, tmp_path), rel=within)
    assert float(CodedSize().soft(quantizer).detach()) == pytest.approx(estimate / 2**20)


@pytest.mark.parametrize("kind", [UniformQuantizer, LSQ])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_other_methods_have_an_estimate_without_gradient(kind, bits, tmp_path):
    quantizer = kind(heavy_tailed((100, 50), (64, 32, 3, 3)), bits=bits, min_size=0)
    size = CodedSize().soft(quantizer)
    assert float(size) * 2**20 == pytest.approx(coded_bytes(quantizer, tmp_path), rel=0.03)
    assert not size.requires_grad


def test_floats_count_as_in_the_formula():
    for float16, bits in ((False, 32), (True, 16)):
        model = Bag((100, 50), (10,))
        quantizer = DiffQuantizer(model, min_size=0, exclude=["w1"], float16=float16)
        assert float(CodedSize().soft(quantizer).detach()) * 2**23 == pytest.approx(
            float(quantizer.coded_bits().detach()) + 10 * bits
        )


def test_the_gradient_is_the_change_of_the_entropy_where_levels_are_many():
    """A bit more for a group costs a bit for each of its weights; and larger weights cost more."""
    model = heavy_tailed((64, 80))
    quantizer = DiffQuantizer(model, min_size=0, group_size=80)
    (logits,) = quantizer.learned().values()
    quantizer.coded_bits().backward()
    bits_slope = quantizer._param.bits_slope(logits.detach())
    torch.testing.assert_close((logits.grad / bits_slope).sum(), torch.tensor(64 * 80.0), rtol=0.03, atol=0)
    assert (model.w0.grad * (model.w0 - model.w0.mean()) >= 0).all() and model.w0.grad.abs().max() > 0


def test_the_gradient_of_the_model_is_the_derivative():
    """Of the formula in coded_widths.py, written out; groups of a width share a mean."""
    flat, bits = torch.randn(40), torch.tensor([2, 4, 4, 8], dtype=torch.uint8)
    stored = store_minmax(flat, bits, 10, 8)
    widths = torch.tensor([2.0, 3.5, 4.3, 8.0], requires_grad=True)
    coded_bits_of_widths(flat, widths, stored).backward()
    low, high = stored.scales
    distances = (flat - flat.mean()).abs().view(4, 10).sum(1)
    sums = distances * (2 ** widths.detach() - 1) / (high - low)
    classes = stored.bits.long()
    of_class = torch.stack([sums[classes == kind].sum() for kind in classes])
    count = torch.stack([10.0 * (classes == kind).sum() for kind in classes])
    mean = (of_class + 0.5) / (count + 2)
    theta = mean / ((1 + mean**2).sqrt() + 1)
    expected = -torch.log2(theta) * distances * 2 ** widths.detach() * 0.6931472 / (high - low)
    torch.testing.assert_close(widths.grad, expected)


# ---- widths below one bit ---------------------------------------------------------------------------------------


def fading(bits, weight, group_size=4, noise="none", seed=0):
    param = PARAMS["bits"](0.0, 15.0)
    logits = logits_of(torch.tensor(bits, dtype=torch.float64), param, margin=1e-6).float().requires_grad_()
    torch.manual_seed(seed)
    return add_fading_noise(weight, logits, group_size, param, noise_of(noise)), logits, param


def test_from_one_bit_up_it_is_the_noise_of_diffq():
    weight = torch.randn(8, requires_grad=True)
    value, logits, param = fading([1.2, 5.0], weight, noise="uniform")
    torch.manual_seed(0)
    assert torch.equal(value, add_noise(weight, logits, 4, param, noise_of("uniform")))


def test_below_one_bit_weights_fade_to_the_value_of_a_group_of_no_bits():
    weight = torch.tensor([-1.0, 0.5, 2.0, 1.0, 1.0, -0.5, 0.25, 3.0])
    for bits in (0.75, 0.25, 1e-3):
        value, _, _ = fading([bits, bits], weight)
        torch.testing.assert_close(value, bits * weight, rtol=1e-2, atol=1e-4)
    above = weight + 5  # 0 is not in its range: its lowest weight is nearest
    torch.testing.assert_close(
        fading([1e-3, 1e-3], above)[0], above.min() + 1e-3 * (above - above.min()), rtol=1e-3, atol=0
    )


def test_gradients_below_one_bit():
    """To the weight the share; to the logit what more of the weight would change."""
    weight = torch.randn(8, requires_grad=True)
    value, logits, param = fading([0.5, 0.25], weight)
    upstream = torch.randn(8)
    value.backward(upstream)
    torch.testing.assert_close(
        weight.grad, upstream * torch.tensor([0.5, 0.25]).repeat_interleave(4), rtol=1e-3, atol=1e-5
    )
    expected = (upstream * weight.detach()).view(2, 4).sum(1) * param.bits_slope(logits.detach())
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", ["formula", "coded"])
def test_training_makes_groups_vanish_that_nobody_needs(measure, tmp_path):
    """Half of the rows have no use for the loss: they end as one value, the others do not."""
    model = heavy_tailed((8, 64))
    quantizer = DiffQuantizer(model, min_size=0, group_size=64, min_bits=0, init_bits=4, noise="uniform")
    optimizer = torch.optim.Adam([{"params": []}])
    quantizer.setup_optimizer(optimizer, lr=0.1)
    target = model.w0.detach().clone()
    for _ in range(150):
        optimizer.zero_grad()
        loss = (model()[0][:4] - target[:4]).square().mean()
        size = quantizer.model_size() if measure == "formula" else CodedSize().soft(quantizer)
        (loss + 400 * size).backward()
        optimizer.step()
    stored = quantizer.stored_model().tensors["w0"]
    assert (stored.bits[4:] == 0).all() and (stored.bits[:4] >= 2).all()
    assert (model.eval()()[0][4:] == 0).all()
    storage.save(quantizer, tmp_path / "model.safetensors")
    twin = Bag((8, 64))
    storage.load(tmp_path / "model.safetensors", twin)
    assert torch.equal(twin()[0], model()[0])


def test_no_step_for_no_bits():
    with pytest.raises(ValueError, match="min_bits must be above 0 with param 'noise'"):
        DiffQuantizer(Bag((4, 4)), min_size=0, min_bits=0, param="noise")
    DiffQuantizer(Bag((4, 4)), min_size=0, min_bits=0.1, param="noise")
