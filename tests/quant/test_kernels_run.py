"""How compiled kernels are run: threads, nodes of autograd's graph, memory formats, tensors of another kind."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quant_models import Net, images, noisy_bag, same_bits
from quant_reference import Setting
from torch import nn

from diffq_exp.quant import DiffQuantizer, compiled, draw, groups, quantizer_of
from diffq_exp.quant.cpu import threads
from diffq_exp.quant.pieces import PIECE

SHAPES = (7,), (8, 16, 3, 3), (9001,), (1,)


def one_step(model, seed=4):
    torch.manual_seed(seed)
    values = model()
    model.zero_grad()
    (sum(value.square().sum() for value in values) + quantizer_of(model).model_size()).backward()
    return [one.detach().clone() for one in values] + [one.grad.clone() for one in model.parameters()]


@pytest.fixture
def on_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("group_size", [0, 1, 7, 8, 5000])
@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_nothing_depends_on_the_threads(kind, group_size, on_threads, monkeypatch):
    model = noisy_bag(Setting(noise=kind, group_size=group_size), (90_000,), (300,), (20_001,))
    found = []
    for number in (1, 2, 3):
        on_threads(number)
        found.append(one_step(model))
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    found.append(one_step(model))
    for other in found[1:]:
        assert all(same_bits(one, two) for one, two in zip(found[0], other, strict=True))


def test_large_weights_go_through_torchs_openmp(monkeypatch):
    parallel, calls = threads._openmp(), []
    if parallel is None:
        pytest.skip("torch is linked to another kind of OpenMP, or to none")
    monkeypatch.setattr(threads, "_openmp", lambda: lambda *args: (calls.append(args[2]), parallel(*args)))
    one_step(noisy_bag(Setting(group_size=1), (9 * PIECE,)))
    assert calls == [torch.get_num_threads()] * 6  # look, add_noise, pass_back, share, and two of the size


def test_a_node_for_each_weight_draws_the_same_noise(device):
    model = noisy_bag(Setting(group_size=8), *SHAPES, device=device)
    torch.manual_seed(4)
    together = model()
    torch.manual_seed(4)
    with quantizer_of(model).noisy():
        apart = model()
    assert len({value.grad_fn for value in together}) == 1 and len({value.grad_fn for value in apart}) == len(
        SHAPES
    )
    assert all(same_bits(*pair) for pair in zip(together, apart, strict=True))


def test_gradients_do_not_depend_on_which_weights_go_together(monkeypatch):
    found = []
    for most in (1, 2**62):
        monkeypatch.setitem(compiled.MOST, "cpu", most)
        torch.manual_seed(1)
        model = Net().to(memory_format=torch.channels_last)
        DiffQuantizer(model, min_size=0, group_size=4, init_bits=3).no_optimizer()
        model(images()).square().sum().backward()
        found.append({name: param.grad for name, param in model.named_parameters()})
    assert found[0]["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, grad in found[0].items():
        assert same_bits(grad, found[1][name]) and grad.stride() == found[1][name].stride()


def test_neighbours_go_together_up_to_a_bound():
    sizes = [5, 5, 9, 1, 1, 30, 3, 40, 2, 2]
    found = [sizes[some] for some in groups.together([torch.empty(size) for size in sizes], 20)]
    assert found == [[5, 5, 9, 1], [1], [30], [3], [40], [2, 2]]
    assert list(groups.together([], 20)) == []


@pytest.mark.parametrize("large", [False, True])
def test_channels_last_weights_and_gradients(large, device):
    """Groups are row-major, whatever the memory format; so is the noise."""
    setting = Setting(group_size=9, init_bits=3)
    shape = (40, 128, 3, 3) if large else (8, 16, 3, 3)
    found = []
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


@pytest.mark.usefixtures("each_way")
def test_weights_that_a_forward_does_not_use_have_no_gradient():
    """As without a quantizer: an optimizer with momentum then leaves them alone."""
    model = noisy_bag(Setting(group_size=4), (6, 8), (40,), (9,))
    first, _, third = model()
    (first.sum() + third.square().sum()).backward()
    assert model.w1.grad is None and model.w1_diffq.grad is None
    assert model.w0.grad is not None and (model.w2_diffq.grad != 0).any()


@pytest.mark.usefixtures("each_way")
def test_a_backward_takes_the_gradients_of_a_layer_before_it_goes_on(monkeypatch):
    """Else all would be in memory at its end, and distributed training could send none before."""
    monkeypatch.setitem(compiled.MOST, "cpu", 1)
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    seen = []
    for number, layer in enumerate(model):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: seen.append(f"weight {number}"))
        layer.register_full_backward_hook(lambda *_, number=number: seen.append(f"layer {number}"))
    out = model(torch.randn(2, 8, requires_grad=True))
    if not hasattr(out.grad_fn, "_set_sequence_nr"):
        pytest.skip("this torch has an order of its own")
    out.sum().backward()
    assert seen.index("weight 2") < seen.index("layer 0") and len(seen) == 6


@pytest.mark.parametrize("what", ["w0", "w0_diffq"])
@pytest.mark.usefixtures("each_way")
def test_what_changes_before_the_backward_is_refused_by_autograd(what):
    model = noisy_bag(Setting(group_size=4), (8, 8), (40,))
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


@pytest.mark.usefixtures("each_way")
def test_sparse_gradients_of_an_embedding():
    found = []
    for sparse in (False, True):
        torch.manual_seed(1)
        model = nn.Embedding(30, 9, sparse=sparse)
        DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
        model(torch.tensor([3, 7, 3])).square().sum().backward()
        found.append((model.weight.grad, model.weight_diffq.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_that_autograd_does_not_write(device):
    """Zeros without memory."""
    model = noisy_bag(Setting(group_size=4), (64,), device=device)
    model()[0].backward(torch._efficientzerotensor((64,), device=device))
    assert (model.w0.grad == 0).all() and (model.w0_diffq.grad == 0).all()


def test_small_weights_stay_on_the_thread_that_calls(monkeypatch):
    """However many pieces they are: after a fork, OpenMP has no threads to give."""
    monkeypatch.setattr(threads, "_openmp", lambda: pytest.fail("OpenMP was asked"))
    one_step(noisy_bag(Setting(group_size=8), *[(16, 16)] * 100))


def test_a_default_device_is_none_of_the_kernels_business():
    draw.cells_of.cache_clear()
    model = noisy_bag(Setting(group_size=8), (300,))
    torch.set_default_device("meta")
    try:
        (model()[0].sum() + quantizer_of(model).model_size()).backward()
    finally:
        torch.set_default_device(None)
    assert (model.w0_diffq.grad != 0).all()


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


COLD = """
from numba.core import caching
def fail(*args, **kwargs):
    raise {error}
caching.IndexDataCacheFile.{method} = fail
import torch
from diffq_exp.quant import DiffQuantizer
model = torch.nn.Linear(9, 9)
DiffQuantizer(model, min_size=0).no_optimizer()
model(torch.ones(1, 9)).sum().backward()
print(model.weight_diffq.grad.isfinite().all().item())
"""


@pytest.mark.parametrize(("method", "error"), [("save", "OSError(28, 'No space left')"), ("load", "EOFError()")])
def test_trouble_with_kept_code_costs_time_and_nothing_else(method, error):
    command = [sys.executable, "-c", COLD.format(method=method, error=error)]
    if method == "save":  # nothing is there yet
        command[2] = "import os, tempfile; os.environ['NUMBA_CACHE_DIR'] = tempfile.mkdtemp()\n" + command[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "True", done.stderr
