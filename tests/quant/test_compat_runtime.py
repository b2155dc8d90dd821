"""Copies, precisions, compilation: what else happens to a model with a quantizer."""

import copy
import io
import pickle

import pytest
import torch
from helpers.quant_models import (
    Net,
    Tied,
    assert_same,
    images,
    left_behind,
    same_bits,
    seen_weights,
    set_bits,
    snapshot,
)
from helpers.quant_reference import (
    Setting,
    named_logits,
    named_weights,
    rounded_to_levels,
    stored_bits,
    stored_diffq,
)
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, quantizer_of

SETTING = Setting(group_size=4, init_bits=3)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, by_pickle, by_torch]
KINDS = {
    DiffQuantizer: {"min_size": 0, "group_size": 4, "init_bits": 3},
    UniformQuantizer: {"min_size": 0, "bits": 3, "qat": True},
    LSQ: {"min_size": 0, "bits": 3},
}


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["fresh", "after train", "after eval", "quantized"])
def test_a_copy_has_a_quantizer_of_its_own(duplicate, kind, when):
    model = Net()
    quantizer = kind(model, **KINDS[kind])
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    model.norm.momentum = 0.0
    if when != "fresh":
        model.train(when == "after train")(images())
    if when == "quantized":
        quantizer.quantize()
    other = duplicate(model)
    second = quantizer_of(other)
    assert type(second) is kind and second is not quantizer and quantizer_of(model) is quantizer
    assert_same(snapshot(other), snapshot(model))
    assert same_bits(other.eval()(images()), model.eval()(images()))
    quantizer.unquantize()
    second.unquantize()
    assert_same(snapshot(other), snapshot(model))

    before = snapshot(model)
    size = quantizer.true_model_size()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1.0)
    if kind is DiffQuantizer:
        assert second.true_model_size() > size
    assert quantizer.true_model_size() == size
    assert not torch.equal(other(images()), model(images()))
    assert_same(snapshot(model), before)
    if kind is not UniformQuantizer:
        second.no_optimizer()
    other.train()(images()).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in other.parameters())
    assert left_behind(model) == left_behind(other) == []
    second.detach()
    assert quantizer_of(other) is None and quantizer_of(model) is quantizer
    assert same_bits(model.eval()(images()), model(images()))


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copy_of_a_tied_model_stays_tied(duplicate):
    model = Tied()
    quantizer = DiffQuantizer(model, **SETTING.kwargs())
    other = duplicate(model)
    assert other.out.weight is other.embed.weight
    second = quantizer_of(other)
    second.no_optimizer()
    assert dict(second.tied_names) == dict(quantizer.tied_names)
    _, seen = seen_weights(other, torch.arange(4))
    assert same_bits(seen["embed.weight"], seen["out.weight"])


def test_a_copy_trains_with_an_optimizer_of_its_own():
    model = Net()
    DiffQuantizer(model, **SETTING.kwargs())
    other = copy.deepcopy(model)
    for p in named_logits(other).values():
        assert all(p is not q for q in model.parameters())
    optimizer = torch.optim.Adam(list(named_weights(other).values()))
    quantizer_of(other).setup_optimizer(optimizer, lr=0.1)
    before = snapshot(model)
    (other(images()).sum() + quantizer_of(other).model_size()).backward()
    optimizer.step()
    assert_same(snapshot(model), before)
    assert not torch.equal(other.head.weight_diffq, model.head.weight_diffq)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", [True, False])
def test_autocast_to_bfloat16(kind, cache):
    model, plain = Net(), Net()
    plain.load_state_dict(model.state_dict())
    quantizer = kind(model, **KINDS[kind])
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
        out, seen = seen_weights(model, images())
        loss = out.float().square().mean() + quantizer.model_size()
        size = quantizer.model_size()
    loss.backward()
    assert out.dtype == torch.bfloat16
    assert size.item() == pytest.approx(quantizer.model_size().item(), rel=1e-6)
    assert all(value.dtype == torch.float32 for value in seen.values())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert model.conv.weight.grad.abs().sum() > 0

    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache), torch.no_grad():
        _, low = seen_weights(model.eval(), images())
    with torch.no_grad():
        nn.init.zeros_(model.head.bias)
        nn.init.ones_(model.head.bias)  # forget what was computed under autocast
        _, full = seen_weights(model, images())
    for name in named_weights(model, ("_diffq", "_lsq")):
        assert same_bits(low[name], full[name]) or name == "head.bias", name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [True, False])
def test_models_of_other_dtypes(dtype, kind, before):
    model = Net().to(dtype) if before else Net()
    quantizer = kind(model, **KINDS[kind])
    model.to(dtype)
    if kind is not UniformQuantizer:
        quantizer.no_optimizer()
    out, seen = seen_weights(model, images().to(dtype))
    (out.float().square().mean() + quantizer.model_size()).backward()
    for name in named_weights(model, ("_diffq", "_lsq")):
        assert seen[name].dtype == dtype and seen[name].isfinite().all(), name
    assert out.dtype == dtype and all(p.grad.isfinite().all() for p in model.parameters())
    _, seen = seen_weights(model.eval(), images().to(dtype))
    for name, p in named_weights(model, ("_diffq", "_lsq")).items():
        if kind is DiffQuantizer:
            assert set(stored_bits(named_logits(model)[name], SETTING)) == {3}
            assert same_bits(seen[name], stored_diffq(p, named_logits(model)[name], SETTING)), name
        elif kind is UniformQuantizer:
            assert same_bits(seen[name], rounded_to_levels(p, 7)), name
        assert seen[name].dtype == dtype


def test_two_quantized_models_do_not_disturb_each_other():
    teacher, student = Net(), Net()
    DiffQuantizer(teacher, **SETTING.kwargs())
    DiffQuantizer(student, **SETTING.kwargs()).no_optimizer()
    set_bits(student, SETTING)
    target = teacher.eval()(images())
    (student(images()) - target.detach()).square().sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert same_bits(teacher(images()), target)


def test_a_quantized_part_of_a_larger_model():
    model = nn.Sequential(Net(), nn.Linear(5, 2))
    DiffQuantizer(model[0], **SETTING.kwargs()).no_optimizer()
    assert quantizer_of(model) is None and quantizer_of(model[0]) is not None
    x = images()
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert same_bits(model(x), model[1](model[0](x)))
    assert left_behind(model) == []
