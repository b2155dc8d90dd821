"""All stored steps 2^bits times as large: how a file is made to fit a size."""

import copy

import pytest
import torch
from helpers.quant_models import Bag

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, Quantizer, RateQuantizer, UniformQuantizer

METHODS = {
    "diffq": (DiffQuantizer, {"init_bits": 8, "group_size": 8}),
    "noise": (DiffQuantizer, {"init_bits": 8, "group_size": 8, "param": "noise"}),
    "rate": (RateQuantizer, {"step": 0.1}),
    "lsq": (LSQ, {"bits": 6}),
    "uniform": (UniformQuantizer, {"bits": 6, "qat": True}),
}
EACH = pytest.mark.parametrize("method", METHODS)


def attached(method) -> tuple[Bag, Quantizer]:
    torch.manual_seed(0)
    model = Bag((40, 50))
    kind, keywords = METHODS[method]
    quantizer = kind(model, min_size=0, **keywords)
    quantizer.no_optimizer()
    return model.eval(), quantizer


def step_of(quantizer) -> float:
    """The step of the stored grid, of its first group."""
    stored = quantizer.stored_model().tensors["w0"]
    if stored.grid == "step":
        return float(stored.scales)
    low, high = stored.scales.tolist()
    return (high - low) / (2 ** int(stored.bits[0]) - 1 if stored.top is None else stored.top)


@EACH
@pytest.mark.parametrize("bits", [1, 2, -1])
def test_the_step_grows_and_evaluation_follows(method, bits):
    model, quantizer = attached(method)
    before, first = step_of(quantizer), model()[0].clone()
    quantizer.coarsen(bits)
    grows = 2.0 ** (bits / 2 if method == "lsq" else bits)  # the range of LSQ grows with its width
    assert step_of(quantizer) / before == pytest.approx(grows, rel=0.06)  # of 2^b - 1 levels
    assert not torch.equal(model()[0], first)


@EACH
def test_files_become_smaller_little_by_little(method):
    _, quantizer = attached(method)
    sizes = []
    for _ in range(12):
        sizes.append(len(storage.serialize(quantizer)))
        quantizer.coarsen(0.25)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) >= 3  # whole bits of one width for all
    quantizer.coarsen(30)
    assert len(storage.serialize(quantizer)) <= sizes[-1]


@pytest.mark.parametrize("method", ["lsq", "uniform"])
def test_a_width_that_was_lowered_trains_and_counts(method):
    model, quantizer = attached(method)
    before = quantizer.true_model_size()
    quantizer.coarsen(3)
    assert quantizer.widths(quantizer.selection.quantized[0]).tolist() == [3]
    assert quantizer.true_model_size() < 0.6 * before
    assert len(model.train()()[0].detach().round(decimals=4).unique()) <= 8


def test_a_restored_lsq_has_its_own_width_again():
    model, quantizer = attached("lsq")
    twin, other = attached("lsq")
    quantizer.coarsen(1.5), other.coarsen(1.5)
    with torch.no_grad():
        model.w0_lsq.mul_(1.7)
    other.restore_quantized_state(copy.deepcopy(quantizer.get_quantized_state()))
    assert torch.equal(twin()[0], model()[0])
    torch.testing.assert_close(twin.w0_lsq, model.w0_lsq)


def test_a_method_without_steps_says_so():
    class Plain(UniformQuantizer):
        coarsen = Quantizer.coarsen

    with pytest.raises(ValueError, match="Plain cannot be made to fit a size"):
        Plain(Bag((4, 4)), min_size=0).coarsen(1)
