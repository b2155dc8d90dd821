"""Tensors that come to compiled kernels otherwise than plain: memory formats, views, replaced ones."""

import pytest
import torch
from helpers.quant_models import noisy_bag, one_step, same_bits
from helpers.quant_reference import Setting
from torch import nn

from diffq_exp.quant import DiffQuantizer, quantizer_of
from diffq_exp.quant.kernels import cells, operands


def test_channels_last_weights_and_gradients(device):
    """Of two tiles. Groups are row-major, whatever the memory format; so is the noise."""
    assert_any_format_gives_the_same((8, 58, 3, 3), device)


def test_channels_last_weights_that_go_to_several_threads():
    assert_any_format_gives_the_same((40, 128, 3, 3), torch.device("cpu"))


def assert_any_format_gives_the_same(shape, device):
    setting, found = Setting(group_size=9, init_bits=3), []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = noisy_bag(setting, shape, (40,), device=device)
        model.w0.data = model.w0.data.to(memory_format=layout)
        torch.manual_seed(4)
        values = model()
        upstream = torch.randn(shape).to(device, memory_format=layout)
        values[0].backward(upstream)
        assert values[0].is_contiguous(memory_format=layout)
        found.append((values[0], model.w0.grad, model.w0_diffq.grad))
    for one, other in zip(*found, strict=True):
        assert same_bits(one, other)


def test_channels_last_is_copied_only_where_kernels_cannot_read_it():
    last = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    for kept in (True, False):
        (ready,) = operands.checked([last], [48], last.device, channels_last=kept)
        assert (ready is last) == kept and torch.equal(ready, last) and ready.is_contiguous() != kept


def test_transposed_and_expanded_gradients(device):
    model = noisy_bag(Setting(group_size=3), (30, 50), device=device)
    found = []
    row = torch.arange(50.0, device=device)
    for grad in (row.expand(30, 50), row.repeat(30, 1), row.repeat(30, 1).t()):
        torch.manual_seed(4)
        model.zero_grad()
        (value,) = model()
        (value.t() if grad.shape[0] == 50 else value).backward(grad)
        found.append((model.w0.grad.clone(), model.w0_diffq.grad.clone()))
    for other in found[1:]:
        assert all(same_bits(*pair) for pair in zip(found[0], other, strict=True))


def test_a_gradient_with_a_pending_sign(device):
    """Of the imaginary part of a conjugate, which torch keeps as a mark on the tensor."""
    model = noisy_bag(Setting(group_size=4), (16,), device=device)
    found = []
    for conjugate in (True, False):
        torch.manual_seed(4)
        model.zero_grad()
        (value,) = model()
        number = torch.complex(torch.zeros_like(value), value)
        (number.conj().imag if conjugate else -number.imag).mul(torch.arange(16.0, device=device)).sum().backward()
        found.append((model.w0.grad.clone(), model.w0_diffq.grad.clone()))
    assert all(same_bits(*pair) for pair in zip(*found, strict=True))


def test_signs_that_are_pending(device):
    model = noisy_bag(Setting(group_size=4), (64,), device=device)
    plain = [model.w0.detach().clone(), model.w0_diffq.detach().clone()]
    found = []
    for pending in (False, True):
        for one, value in zip((model.w0, model.w0_diffq), plain, strict=True):
            one.data = torch._neg_view(-value) if pending else value
        found.append((*one_step(model), quantizer_of(model).model_size().detach()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_sparse_gradients_of_an_embedding(each_way):
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = nn.Embedding(30, 9, sparse=sparse).to(each_way)
        DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
        model(torch.tensor([3, 7, 3], device=each_way)).square().sum().backward()
        found.append((model.weight.grad, model.weight_diffq.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_that_autograd_does_not_write(device):
    """Zeros without memory."""
    model = noisy_bag(Setting(group_size=4), (64,), device=device)
    model()[0].backward(torch._efficientzerotensor((64,), device=device))
    assert (model.w0.grad == 0).all() and (model.w0_diffq.grad == 0).all()


@pytest.mark.parametrize("what", ["w0", "w0_diffq"])
def test_what_changes_before_the_backward_is_refused_by_autograd(what, each_way):
    model = noisy_bag(Setting(group_size=4), (8, 8), (40,), device=each_way)
    value = model()[0]
    with torch.no_grad():
        getattr(model, what).add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


WRONG = {
    "half": lambda model: model.half(),
    "double": lambda model: model.double(),
    "shorter": lambda model: setattr(model.w1_diffq, "data", model.w1_diffq.new_zeros(3)),
    "longer": lambda model: setattr(model.w0, "data", model.w0.new_zeros(70)),
}


@pytest.mark.parametrize("when", ["before the forward", "before the backward"])
@pytest.mark.parametrize("what", WRONG)
def test_tensors_of_another_kind_than_expected_are_refused(what, when, device):
    """Kernels would read, or write, what is beyond them."""
    model = noisy_bag(Setting(group_size=4), (8, 8), (40,), device=device)
    if when == "before the backward":
        values, size = model(), quantizer_of(model).model_size()
        WRONG[what](model)
        with pytest.raises(RuntimeError, match="were replaced"):
            sum(value.sum() for value in values).backward()
        if what != "longer":  # of a weight, which sizes do not look at
            with pytest.raises(RuntimeError, match="were replaced"):
                size.backward()
        return
    WRONG[what](model)
    if what in ("half", "double"):  # torch does it
        assert {value.dtype for value in model()} == {model.w0.dtype} != {torch.float32}
    else:
        with pytest.raises(RuntimeError, match=r"instead of torch\.float32 on (cpu|cuda:0) with"):
            model()


def test_a_default_device_is_none_of_the_kernels_business():
    cells.cells_of.cache_clear()
    model = noisy_bag(Setting(group_size=8), (300,))
    torch.set_default_device("meta")
    try:
        (model()[0].sum() + quantizer_of(model).model_size()).backward()
    finally:
        torch.set_default_device(None)
    assert (model.w0_diffq.grad != 0).all()
