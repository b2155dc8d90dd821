"""Layers that run again in a backward without noisy(): an error that names it, not wrong gradients."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.quant.misuse import Recomputed


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False, of=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.reentrant, self.of = reentrant, of

    def forward(self, x):
        x = torch.relu(self.first(x))
        return checkpoint(self.second, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("kind", [DiffQuantizer, LSQ, RateQuantizer])
@pytest.mark.parametrize("reentrant", [False, True])
def test_it_is_refused_without_noisy_and_right_inside(kind, reentrant):
    model = Checkpointed(reentrant)
    quantizer = kind(model, min_size=0)
    quantizer.no_optimizer()
    inputs = torch.randn(4, 8)
    with pytest.raises(Recomputed, match=r"inside `with quantizer.noisy\(\):`"):
        model(inputs).square().sum().backward()
    plain = copy.deepcopy(model)
    plain.zero_grad()
    model.zero_grad()
    plain.forward = lambda x: plain.second(torch.relu(plain.first(x)))
    for one in (model, plain):
        torch.manual_seed(5)
        quantizer_ = next(hook.__self__ for hook in one._forward_pre_hooks.values()).owner
        with quantizer_.noisy():
            one(inputs).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_a_whole_model_that_runs_again_is_refused_too():
    outer = nn.Module()
    outer.inner = Checkpointed()
    DiffQuantizer(outer.inner, min_size=0).no_optimizer()
    out = checkpoint(outer.inner, torch.randn(2, 8, requires_grad=True), use_reentrant=False)
    with pytest.raises(Recomputed):
        out.sum().backward()


def test_what_does_not_change_in_training_may_run_again():
    model = Checkpointed()
    UniformQuantizer(model, bits=3, min_size=0)
    model(torch.randn(2, 8)).sum().backward()
    assert model.second.weight.grad is not None


def test_layers_of_their_own_and_after_detach_are_free():
    model = Checkpointed()
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.no_optimizer()
    model.first(torch.randn(2, 8)).sum().backward()
    quantizer.detach()
    model(torch.randn(2, 8)).sum().backward()
    assert not model.second._forward_pre_hooks
