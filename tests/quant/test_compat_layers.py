"""Layers that use their weights in ways of their own: recurrent, attention, tied, channels_last."""

import copy

import pytest
import torch
from helpers.quant_models import Tied, assert_same, left_behind, seen_weights, set_bits, snapshot
from helpers.quant_reference import Setting, named_logits, named_weights, stored_diffq
from torch import nn
from torch.func import functional_call

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, restore_quantized_state

SETTING = Setting(group_size=5, init_bits=3)

RECURRENT = {
    "lstm": lambda: nn.LSTM(4, 6, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(4, 6, proj_size=3),
    "gru": lambda: nn.GRU(4, 6),
    "rnn": lambda: nn.RNN(4, 6, bias=False),
}


def first(out):
    return out[0] if isinstance(out, tuple) else out


class Lines(nn.Module):
    """A recurrent layer and a read-out: (T, B, 4) -> (T, B, ...)."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = RECURRENT[kind]()

    def forward(self, x):
        return first(self.rnn(x)) * 2


def with_weights(model, weights, x):
    """What an equal model without a quantizer computes with these weights."""
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in plain.named_parameters():
            p.copy_(weights[name])
    return first(plain(x))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("training", [True, False])
def test_noise_reaches_a_recurrent_layer_once_per_weight(kind, training):
    plain = Lines(kind).train(training)
    model = copy.deepcopy(plain)
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    set_bits(model, SETTING, low=2, high=5)
    x = torch.randn(7, 3, 4)
    floats = snapshot(model)
    out, seen = seen_weights(model, x)
    assert out.shape == plain(x).shape and not torch.allclose(out, plain(x), atol=1e-3)
    torch.testing.assert_close(out, with_weights(plain, seen, x))
    again = first(model(x))
    assert torch.equal(again, out) is not training
    assert left_behind(model) == []
    assert_same(snapshot(model), floats)
    assert all(any(w is p for p in model.parameters()) for w in model.rnn._flat_weights)
    if not training:
        logits = named_logits(model)
        for name, p in named_weights(model).items():
            assert torch.equal(seen[name], stored_diffq(p, logits[name], SETTING))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", RECURRENT)
def test_gradients_through_a_recurrent_layer(kind):
    model = Lines(kind).double()
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    model.double()
    x = torch.randn(5, 2, 4).double()
    out, seen = seen_weights(model, x)
    loss = out.square().sum()
    upstream = dict(
        zip(
            seen,
            torch.autograd.grad(loss, list(seen.values()), retain_graph=True, allow_unused=True),
            strict=True,
        )
    )
    loss.backward()
    own = {
        name: value.detach().clone().requires_grad_()
        for name, value in seen.items()
        if name in named_weights(model)
    }
    plain = Lines(kind).double()
    functional_call(plain, own, (x,)).square().sum().backward()
    for name, logits in named_logits(model).items():
        torch.testing.assert_close(upstream[name], own[name].grad)
        assert (logits.grad != 0).all(), name
        assert named_weights(model)[name].grad is not None


def test_a_recurrent_layer_as_the_root_and_after_an_error():
    model = nn.LSTM(4, 6)
    plain = copy.deepcopy(model)
    quantizer = DiffQuantizer(model, **SETTING.kwargs())
    quantizer.no_optimizer()
    with pytest.raises(RuntimeError):
        model(torch.randn(3, 2, 9))
    assert left_behind(model) == []
    x = torch.randn(3, 2, 4)
    assert not torch.equal(first(model(x)), first(model(x)))
    with quantizer.enter_quantize():
        stored = snapshot(model)
        inside = first(model.eval()(x))
    torch.testing.assert_close(inside, with_weights(plain, stored, x))
    other = copy.deepcopy(model)
    assert torch.equal(first(other(x)), first(model(x)))
    quantizer.detach()
    torch.testing.assert_close(first(model(x)), first(plain(x)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [UniformQuantizer, LSQ])
def test_the_other_quantizers_reach_a_recurrent_layer(kind):
    model = Lines("lstm")
    plain = copy.deepcopy(model)
    quantizer = kind(model, bits=2, min_size=0)
    x = torch.randn(7, 3, 4)
    out, seen = seen_weights(model.eval(), x)
    torch.testing.assert_close(out, with_weights(plain, seen, x))
    assert not torch.allclose(out, plain(x), atol=1e-2)
    fresh = Lines("lstm")
    restore_quantized_state(fresh, quantizer.get_quantized_state())
    torch.testing.assert_close(fresh(x), out)


ATTENTION = {
    "attention": lambda: Self(nn.MultiheadAttention(8, 2, batch_first=True)),
    "apart": lambda: Self(nn.MultiheadAttention(8, 2, kdim=8, vdim=8, batch_first=True, add_bias_kv=True)),
    "layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "gelu_norm_first": lambda: nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, batch_first=True, activation="gelu", norm_first=True
    ),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    ),
}


class Self(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("kind", ATTENTION)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_attention_computes_with_the_weights_of_the_moment(kind, training, grad):
    """Without gradients in eval() torch takes its fused path, which reads the weights itself."""
    model = ATTENTION[kind]()
    plain = copy.deepcopy(model).train(training)
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    model.train(training)
    x = torch.randn(3, 5, 8)
    with torch.set_grad_enabled(grad):
        out, seen = seen_weights(model, x)
        torch.testing.assert_close(out, with_weights(plain, seen, x), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(out, plain(x), atol=1e-3)
        assert torch.equal(model(x), out) is not training
    assert left_behind(model) == []
    if training and grad:
        model(x).square().sum().backward()
        for name, logits in named_logits(model).items():
            if named_weights(model)[name].min() != named_weights(model)[name].max():
                assert logits.grad.abs().sum() > 0, name


@pytest.mark.parametrize("training", [True, False])
def test_embedding_tied_to_the_last_layer(training):
    model = Tied()
    plain = copy.deepcopy(model)
    DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
    tokens = torch.arange(11)
    out, seen = seen_weights(model.train(training), tokens)
    assert seen["embed.weight"] is seen["out.weight"]
    torch.testing.assert_close(out, with_weights(plain, seen, tokens))
    assert left_behind(model) == []
    if training:
        out.square().sum().backward()
        assert model.embed.weight_diffq.grad.abs().sum() > 0
        assert model.out.weight is model.embed.weight


def test_channels_last_equals_contiguous():
    outs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Conv2d(6, 4, 3).to(memory_format=layout)
        DiffQuantizer(model, **SETTING.kwargs()).no_optimizer()
        set_bits(model, SETTING, low=2)
        outs.append(model.eval()(torch.ones(1, 6, 5, 5)))
    torch.testing.assert_close(*outs)
