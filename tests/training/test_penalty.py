"""The penalty on size: its weight, its measure, and how it goes with progress."""

import pytest
import torch
from torch import nn

from diffq_exp.quant import DiffQuantizer
from diffq_exp.quant.size import FormulaSize
from diffq_exp.training.penalty import ConstantPenalty, Penalty, RampPenalty


def test_a_constant_penalty_is_weight_times_size_to_the_bit():
    quantizer = DiffQuantizer(nn.Linear(30, 40), min_size=0, group_size=7)
    penalty = Penalty(0.3, FormulaSize(), ConstantPenalty())
    for progress in (0.0, 0.4, 1.0):
        assert torch.equal(penalty(quantizer, progress), 0.3 * quantizer.model_size())


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.0), (0.2, 0.0), (0.35, 0.25), (0.5, 0.5), (0.8, 1.0), (1.0, 1.0)]
)
def test_a_ramp_rises_from_start_to_end(progress, factor):
    assert RampPenalty(0.2, 0.8).factor(progress) == pytest.approx(factor)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_a_ramp_that_is_none_is_refused(start, end):
    with pytest.raises(ValueError, match=f"start {start:g} and end {end:g}"):
        RampPenalty(start, end)
