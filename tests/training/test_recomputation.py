"""Networks that run layers again in the backward: trained as if they did not."""

from functools import partial

import pytest
import torch
from helpers.run_pieces import CheckpointedNet, tiny_trainer

from diffq_exp.training.stopping import StopFlag


def trained(folder, again, **keys):
    trainer = tiny_trainer(folder, net=partial(CheckpointedNet, again=again), **keys)
    trainer.fit(StopFlag())
    return trainer


@pytest.mark.parametrize("quantizer", ["diffq", "rate", "lsq", "none"])
def test_weights_are_those_without(quantizer, tmp_path):
    (with_, without) = (trained(tmp_path / str(again), again, quantizer=quantizer) for again in (True, False))
    assert with_.recomputation.needed is (quantizer != "none") and without.recomputation.needed is False
    states = with_.model.state_dict(), without.model.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-6, msg=name)
    sums = with_.sums, without.sums
    assert sums[0].count == sums[1].count
