"""What rows and results say of size and bits, against counts by hand."""

import pytest
import torch
from helpers.run_pieces import TinyNet
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer
from diffq_exp.quant.size import FormulaSize
from diffq_exp.training.size_record import bits_histogram, float32_mb, size_row

MB = 2**20


def set_bits(quantizer, name, bits):
    """Give a tensor's groups these widths (param="bits")."""
    logits = quantizer.learned()[name + "_diffq"]
    share = (torch.as_tensor(bits) - quantizer.min_bits) / (quantizer.max_bits - quantizer.min_bits)
    with torch.no_grad():
        logits.copy_(torch.logit(share.float()))


def test_float32_counts_parameters_and_buffers_at_4_bytes():
    model = nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6))
    entries = 60 + 6 + 6 + 6 + 6 + 6 + 1  # weight, bias, 2 of the norm, its mean, variance and number of batches
    assert float32_mb(model) == 4 * entries / MB


def test_float32_counts_a_tied_tensor_once():
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    model[1].weight = model[0].weight
    assert float32_mb(model) == 4 * 36 / MB


def test_float32_leaves_out_what_the_quantizer_learns():
    model = TinyNet()
    before = float32_mb(model)
    quantizer = DiffQuantizer(model, 0.0005)
    assert float32_mb(model, set(quantizer.learned())) == before < float32_mb(model)


def test_row_without_a_quantizer():
    row = size_row(TinyNet(), None, FormulaSize())
    entries = 8 * 9 + 8 + 512 * 4 + 4
    assert row["size_mb"] == {"soft": 4 * entries / MB, "measure": "formula", "true": 4 * entries / MB}


def test_row_of_diffq_has_soft_and_true_size_and_bits():
    model = TinyNet()
    quantizer = DiffQuantizer(model, min_size=0.0, group_size=8, exclude=["bias"])
    set_bits(quantizer, "conv.weight", torch.linspace(2.6, 6.6, 9))
    set_bits(quantizer, "head.weight", torch.full((256,), 4.4))
    row = size_row(model, quantizer, FormulaSize())
    assert row["size_mb"]["soft"] == pytest.approx(quantizer.model_size().item(), rel=1e-6)
    assert row["size_mb"]["true"] == quantizer.true_model_size()
    assert row["size_mb"]["soft"] > row["size_mb"]["true"]  # 4.4 rounds to 4
    bits = row["bits"]
    assert bits["histogram"]["edges"][0] == 2.5 and bits["histogram"]["edges"][-1] == 7.0
    assert bits["histogram"]["counts"] == [1, 1, 1, 257, 1, 1, 1, 1, 1]  # groups: 256 of the head have 4.4 bits
    assert bits["layers"] == pytest.approx({"conv.weight": 4.6, "head.weight": 4.4}, rel=1e-5)
    assert bits["mean"] == pytest.approx((72 * 4.6 + 2048 * 4.4) / 2120, rel=1e-5)
    assert (bits["min"], bits["max"]) == pytest.approx((2.6, 6.6), rel=1e-4)


def test_mean_bits_are_over_entries_also_where_the_last_group_is_short():
    """9 entries in groups of 8: the last entry counts as one of nine, not as half of all."""
    model = nn.Sequential(nn.Linear(9, 1, bias=False))
    quantizer = DiffQuantizer(model, min_size=0.0, group_size=8)
    set_bits(quantizer, "0.weight", [3.0, 12.0])
    bits = size_row(model, quantizer, FormulaSize())["bits"]
    assert bits["mean"] == pytest.approx((8 * 3 + 12) / 9, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "bits", "extra"),
    [(lambda m: UniformQuantizer(m, bits=3, qat=True), 3, 64), (lambda m: LSQ(m, bits=5), 5, 32)],
)
def test_row_of_a_fixed_width(make, bits, extra):
    model = nn.Linear(100, 100)
    row = size_row(model, make(model), FormulaSize())
    learned = 0 if bits == 3 else 1
    size = (bits * 10_000 + extra + 32 * 100) / 8 / MB
    assert row["size_mb"].pop("measure") == "formula"
    assert row["size_mb"] == pytest.approx({"soft": size, "true": size}, rel=1e-6)
    histogram = {"edges": [bits, bits + 0.5], "counts": [1]}  # a tensor is a group
    bits_row = {"mean": bits, "min": bits, "max": bits, "layers": {"weight": bits}, "histogram": histogram}
    assert row["bits"] == bits_row
    assert len(list(model.parameters())) == 2 + learned


def test_values_are_plain_numbers():
    model = TinyNet()
    row = size_row(model, DiffQuantizer(model, 0.0005), FormulaSize())
    leaves = [row["size_mb"]["soft"], row["size_mb"]["true"], *(row["bits"][key] for key in ("mean", "min", "max"))]
    assert all(type(value) is float for value in [*leaves, *row["bits"]["layers"].values()])


def test_it_keeps_no_graph_and_moves_nothing():
    model = TinyNet()
    quantizer = DiffQuantizer(model, 0.0005)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    size_row(model, quantizer, FormulaSize())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


def test_a_histogram_counts_groups_and_leaves_out_what_is_not_finite():
    widths = [torch.tensor([3.0, 3.0]), torch.tensor([[4.2], [float("nan")]]), torch.tensor([2, 4])]
    assert bits_histogram(widths) == {"edges": [2.0, 2.5, 3.0, 3.5, 4.0, 4.5], "counts": [1, 0, 2, 0, 2]}
    assert bits_histogram([torch.full((5,), 3.0)]) == {"edges": [3.0, 3.5], "counts": [5]}
    assert bits_histogram([torch.tensor([float("inf")])]) == {"edges": [], "counts": []}
