"""Traps 8 to 14."""

import io

import pytest
import torch
from helpers.quant_models import (
    Bag,
    Net,
    TwoNames,
    images,
    same_bits,
    scramble,
    seen_weights,
    set_bits,
)
from helpers.quant_reference import MB_BITS, Setting, named_logits, named_weights, stored_diffq, stored_uniform
from torch import nn
from torch.utils.checkpoint import checkpoint

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, restore_quantized_state


@pytest.mark.parametrize("group_size", [0, 1, 4, 10])
def test_trap_08_channels_last_weights_in_row_major_groups(group_size):
    setting = Setting(group_size=group_size, min_bits=1)
    model = Net().to(memory_format=torch.channels_last)
    assert not model.conv.weight.is_contiguous()
    quantizer = DiffQuantizer(model, **setting.kwargs())
    quantizer.no_optimizer()
    set_bits(model, setting)
    x = images().to(memory_format=torch.channels_last)
    model(x).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    _, seen = seen_weights(model.eval(), x)
    expected = stored_diffq(model.conv.weight, model.conv.weight_diffq, setting)
    assert torch.equal(seen["conv.weight"], expected)
    plain = Net()
    restore_quantized_state(plain, quantizer.get_quantized_state())
    assert torch.equal(plain.conv.weight, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("min_bits", -1), ("min_bits", -0.5), ("param", "typo"), ("noise", "typo")]
)
def test_trap_08_wrong_arguments_are_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        DiffQuantizer(Net(), **{name: value})


def test_trap_08_fractional_min_bits_work():
    setting = Setting(group_size=4, min_bits=2.5, max_bits=9.5, init_bits=3)
    model = Net()
    quantizer = DiffQuantizer(model, **setting.kwargs())
    quantizer.no_optimizer()
    (model(images()).sum() + quantizer.model_size()).backward()
    _, seen = seen_weights(model.eval(), images())
    for name, logits in named_logits(model).items():
        assert same_bits(seen[name], stored_diffq(named_weights(model)[name], logits, setting))
    assert quantizer.true_model_size() * MB_BITS % 1 == 0


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
@pytest.mark.parametrize("packed", [True, False])
def test_trap_09_states_load_with_the_safe_default_of_torch_load(kind, packed, tmp_path):
    model, plain = scramble(Net()), Net()
    quantizer = kind(model, min_size=0)
    torch.save(quantizer.get_quantized_state(packed=packed), tmp_path / "state.pt")
    restore_quantized_state(plain, torch.load(tmp_path / "state.pt", weights_only=True))
    assert same_bits(plain.eval()(images()), model.eval()(images()))


def test_trap_10_weights_and_logits_can_be_clipped_apart():
    """A NaN in a weight's gradient reaches no logit when each optimizer group is clipped on its own."""
    model = Bag((20,), (20,))
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = DiffQuantizer(model, min_size=0)
    quantizer.setup_optimizer(optimizer)
    (sum(value.square().sum() for value in model()) + quantizer.model_size()).backward()
    model.w0.grad[3] = float("nan")
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 5.0)
    optimizer.step()
    assert model.w0.isnan().any()
    assert all(logits.isfinite().all() for logits in named_logits(model).values())
    assert quantizer.model_size().isfinite()


@pytest.mark.parametrize("param", ["bits", "noise"])
def test_trap_10_the_soft_size_of_nan_logits_is_nan_and_no_crash(param):
    model = Bag((20,), (20,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=4, param=param)
    nn.init.constant_(model.w0_diffq, float("nan"))
    assert quantizer.model_size().isnan()


@pytest.mark.parametrize("kind", [DiffQuantizer, LSQ])
def test_trap_10_one_scaler_steps_both_optimizers_or_neither(kind):
    """The pieces a trainer needs: logits alone in one optimizer, weights alone in the other."""
    model = Bag((20,))
    sgd, adam = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam([{"params": []}])
    quantizer = kind(model, min_size=0)
    quantizer.setup_optimizer(adam)
    held = [{id(p) for group in o.param_groups for p in group["params"]} for o in (sgd, adam)]
    assert not held[0] & held[1]
    assert held[0] | held[1] == {id(p) for p in model.parameters()}


class Recomputed(nn.Module):
    """Two blocks, with or without activation checkpointing: (B, 6) -> (B, 3)."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        if self.how == "plain":
            return self.last(self.first(x))
        return self.last(checkpoint(self.first, x, use_reentrant=self.how == "reentrant"))


def recomputed_gradients(how, noise, param):
    torch.manual_seed(0)
    model = Recomputed(how)
    quantizer = DiffQuantizer(model, min_size=0, init_bits=3, group_size=4, noise=noise, param=param)
    quantizer.no_optimizer()
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).requires_grad_()
    torch.manual_seed(11)
    with quantizer.noisy():
        (model(x).square().sum() + quantizer.model_size()).backward()
    return {name: p.grad for name, p in model.named_parameters()} | {"input": x.grad}


@pytest.mark.parametrize("how", ["recompute", "reentrant"])
@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("param", ["bits", "noise"])
def test_trap_11_activation_checkpointing_inside_noisy_gives_the_same_gradients(how, noise, param):
    expected, found = recomputed_gradients("plain", noise, param), recomputed_gradients(how, noise, param)
    for name, grad in expected.items():
        assert grad.abs().sum() > 0
        torch.testing.assert_close(found[name], grad, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("bits", [1.3, 1.6, 2.5, 3.3, 6.7])
def test_trap_12_a_fractional_width_errs_by_half_a_step_at_most(bits):
    model = Bag((3000,))
    quantizer = UniformQuantizer(model, bits=bits, min_size=0)
    levels = int(2**bits)
    torch.linspace(-1.7, 2.3, 3000, out=model.w0.data)
    value, weight = model.eval()()[0], model.w0.detach()
    step = (weight.max() - weight.min()).item() / (levels - 1)
    assert (value - weight).abs().max().item() <= step / 2 * (1 + 1e-5) + 1e-6
    assert len(value.unique()) == levels
    plain = Bag((3000,))
    restore_quantized_state(plain, quantizer.get_quantized_state())
    assert same_bits(plain.w0, stored_uniform(weight, bits))


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("excluded", ["a.weight", "b.weight", "a.*", "b.*"])
@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_trap_13_a_tied_tensor_of_which_one_name_is_excluded_is_float_and_counted_once(order, excluded, kind):
    model = TwoNames(order)
    quantizer = kind(model, min_size=0, exclude=[excluded])
    assert list(quantizer.quantized_names) == []
    assert list(quantizer.float_names) == [f"{order[0]}.weight"]
    assert quantizer.true_model_size() * MB_BITS == 36 * 32
    assert quantizer.model_size().item() * MB_BITS == 36 * 32
    assert [name for name, _ in model.named_parameters()] == [f"{order[0]}.weight"]
    _, seen = seen_weights(model.eval(), torch.randn(2, 6))
    assert same_bits(seen["a.weight"], model.a.weight) and same_bits(seen["b.weight"], model.a.weight)


@pytest.mark.parametrize("bits", [1, 0, -2, 1.0])
def test_trap_14_lsq_of_one_bit_is_refused(bits):
    with pytest.raises(ValueError, match=f"bits.*{bits}"):
        LSQ(Net(), bits=bits, min_size=0)


def test_trap_14_lsq_of_two_bits_works():
    model = Bag((50,))
    LSQ(model, bits=2, min_size=0).no_optimizer()
    model()[0].square().sum().backward()
    assert model.w0.grad.isfinite().all()
    assert len(model.eval()()[0].unique()) <= 4


def test_a_state_needs_no_pickle_of_ours():
    """The bytes of a saved state name no module of this project."""
    file = io.BytesIO()
    torch.save(DiffQuantizer(Net(), min_size=0).get_quantized_state(), file)
    assert b"diffq_exp.quant" not in file.getvalue() and b"cdiffq" not in file.getvalue()
