"""The numbered traps of the authors' package, 1 to 7; the rest are in test_traps_more."""

import pytest
import torch
from helpers.quant_models import (
    Bag,
    Bombed,
    Net,
    Tied,
    assert_same,
    images,
    left_behind,
    same_bits,
    scramble,
    seen_weights,
    set_bits,
    snapshot,
)
from helpers.quant_reference import MB_BITS, Setting, logits_for, named_logits, named_weights, stored_diffq
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from diffq_exp.common.units import MB
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, restore_quantized_state

packings = pytest.mark.parametrize("packed", [True, False])


@packings
def test_trap_01_groups_at_15_bits_survive_the_packed_state(packed):
    setting = Setting(group_size=4)
    model, plain = Bag((30, 3)), Bag((30, 3))
    quantizer = DiffQuantizer(model, **setting.kwargs())
    with torch.no_grad():
        model.w0_diffq.copy_(logits_for([15.0, 3.0, 15.0, 15.0, 8.0] * 4 + [15.0] * 3, setting))
    restore_quantized_state(plain, quantizer.get_quantized_state(packed=packed))
    expected = stored_diffq(model.w0, model.w0_diffq, setting)
    assert same_bits(model.eval()()[0], expected)
    assert same_bits(plain.w0, expected)
    assert len(expected.unique()) > 60


@packings
def test_trap_01_the_whole_tensor_as_one_group_can_be_unpacked(packed):
    model, plain = Bag((7, 9), (5,)), Bag((7, 9), (5,))
    quantizer = DiffQuantizer(model, min_size=0, group_size=0, init_bits=4)
    restore_quantized_state(plain, quantizer.get_quantized_state(packed=packed))
    for value, expected in zip(plain(), model.eval()(), strict=True):
        assert same_bits(value, expected)


@packings
def test_trap_01_tied_weights_are_restored_without_the_quantizer(packed):
    model, plain = scramble(Tied()), Tied()
    quantizer = DiffQuantizer(model, min_size=0)
    restore_quantized_state(plain, quantizer.get_quantized_state(packed=packed))
    tokens = torch.arange(11)
    assert same_bits(plain.eval()(tokens), model.eval()(tokens))
    assert plain.out.weight is plain.embed.weight and plain.norm.bias is plain.mid.bias


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
@packings
def test_trap_02_running_statistics_are_stored(kind, packed):
    model, plain = scramble(Net()), Net()
    quantizer = kind(model, min_size=0)
    restore_quantized_state(plain, quantizer.get_quantized_state(packed=packed))
    assert_same(dict(plain.named_buffers()), dict(model.named_buffers()))
    assert plain.norm.num_batches_tracked == 17
    assert same_bits(plain.eval()(images()), model.eval()(images()))


def test_trap_02_running_statistics_are_counted_in_what_is_stored():
    sizes = []
    for track in (True, False):
        model = nn.Sequential(nn.BatchNorm1d(1000, track_running_stats=track), nn.Linear(1000, 2))
        sizes.append(DiffQuantizer(model, min_size=0).packed_model_size())
    assert (sizes[0] - sizes[1]) * MB >= 2 * 4 * 1000


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
@packings
def test_trap_03_a_constant_tensor_is_kept_without_nan(kind, packed):
    model, plain = Net(), Net()  # a fresh norm: weight of ones, bias of zeros
    quantizer = kind(model, min_size=0)
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    out = model(images())
    (out.square().sum() + quantizer.model_size()).backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    _, seen = seen_weights(model.eval(), images())
    if kind is not LSQ:
        assert (seen["norm.weight"] == 1).all()
    assert (seen["norm.bias"] == 0).all()
    restore_quantized_state(plain, quantizer.get_quantized_state(packed=packed))
    assert_same(dict(plain.named_parameters()), {n: seen[n] for n, _ in plain.named_parameters()})


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_trap_04_nothing_to_quantize_behaves_as_without_a_quantizer(kind):
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters())
    quantizer = kind(model, min_size=10)
    assert list(quantizer.quantized_names) == [] and quantizer.bits() == {}
    for training in (True, False, True):
        assert same_bits(model.train(training)(images()), plain.train(training)(images()))
    quantizer.setup_optimizer(optimizer)
    if kind is DiffQuantizer:
        quantizer.check_unused()
    quantizer.quantize()
    quantizer.unquantize()
    with quantizer.enter_quantize(), torch.no_grad():
        model.eval()(images())
    model.train()
    with quantizer.noisy():
        assert same_bits(model(images()), plain(images()))
    bits = 32 * sum(p.numel() for p in plain.parameters())
    assert quantizer.true_model_size() * MB_BITS == bits
    assert quantizer.model_size().item() * MB_BITS == bits
    other = Net()
    restore_quantized_state(other, quantizer.get_quantized_state())
    assert_same(snapshot(other), snapshot(plain))
    (model(images()).sum() + quantizer.model_size()).backward()
    optimizer.step()
    quantizer.clear_optimizer(optimizer)
    quantizer.detach()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("training", [True, False])
def test_trap_05_what_is_saved_and_trained_after_an_exception_are_floats(error, training):
    model = Bombed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    DiffQuantizer(model, min_size=0, init_bits=3).setup_optimizer(optimizer, lr=0.0)
    floats = snapshot(model)
    model.train(training)
    model.bomb.error = error
    with pytest.raises(error):
        model(torch.randn(2, 5))
    assert_same(snapshot(model), floats)
    model.bomb.error = None
    model.train()(torch.randn(2, 5)).sum().backward()
    optimizer.step()
    assert_same(snapshot(model), floats)
    assert left_behind(model) == []
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_trap_06_float16_entries_keep_their_float32_value(kind):
    model = Net()
    quantizer = kind(model, min_size=4 * 20 / 2**20, float16=True)
    floats = snapshot(model)
    assert not torch.equal(floats["head.bias"].half().float(), floats["head.bias"])
    _, seen = seen_weights(model.eval(), images())
    for name in ("conv.bias", "norm.weight", "norm.bias", "head.bias"):
        assert same_bits(seen[name], floats[name].half().float())
    assert_same(snapshot(model), floats)
    with quantizer.enter_quantize():
        assert same_bits(model.head.bias, floats["head.bias"].half().float())
    quantizer.get_quantized_state()
    assert_same(snapshot(model.train()), floats)


class NoWaiting(TorchDispatchMode):
    """Fails on the operator behind .item(), float(), bool() and if: each waits for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("waits for the device")
        return func(*args, **(kwargs or {}))


def test_trap_07_the_watch_sees_a_wait():
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        float(torch.ones(1))


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
def test_trap_07_evaluation_computes_the_stored_weights_once(kind):
    model = Net()
    kind(model, min_size=4 * 20 / 2**20, float16=True)
    model.eval()
    first = seen_weights(model, images())[1]
    for other in (model, model):
        again = seen_weights(other, images())[1]
        for name in named_weights(model, ("_diffq", "_lsq")):
            assert again[name].data_ptr() == first[name].data_ptr(), name
            assert again[name].data_ptr() != dict(model.named_parameters())[name].data_ptr()
    with NoWaiting(), torch.no_grad():
        model(images())


@pytest.mark.parametrize("param", ["bits", "noise"])
def test_trap_07_a_training_step_does_not_wait_for_the_device(param):
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    quantizer = DiffQuantizer(model, min_size=0, group_size=4, param=param)
    quantizer.setup_optimizer(optimizer, lr=0.1)
    set_bits(model, Setting(group_size=4, param=param), low=2)
    x = images()
    with NoWaiting():
        quantizer.model_size()
        loss = model(x).square().mean() + 5 * quantizer.model_size()
        loss.backward()
        quantizer.check_unused()
        optimizer.step()
        with quantizer.noisy():
            model(x).sum().backward()
    assert all(p.grad is not None for p in named_logits(model).values())


@pytest.mark.parametrize("kind", [UniformQuantizer, LSQ])
def test_trap_07_nor_do_steps_of_the_other_quantizers(kind):
    model = Net()
    quantizer = kind(model, min_size=0, **({"qat": True} if kind is UniformQuantizer else {}))
    if kind is LSQ:
        quantizer.no_optimizer()
    with NoWaiting():
        (model(images()).square().mean() + quantizer.model_size()).backward()
    assert all(param.grad is not None and param.grad.isfinite().all() for param in model.parameters())
