"""How compiled kernels are run: threads, bundles of weights, what autograd gets and when."""

import ctypes
import random

import numpy as np
import pytest
import torch
from helpers.quant_models import Net, images, noisy_bag, one_step, same_bits
from helpers.quant_reference import Setting
from numba import carray, config
from numba.core import caching
from torch import nn

from diffq_exp.quant import DiffQuantizer, diffq, quantizer_of
from diffq_exp.quant.kernels import autograd as compiled
from diffq_exp.quant.kernels.cpu import jobs, threads
from diffq_exp.quant.kernels.tiles import TILE, bundle_slices

SHAPES = (7,), (8, 16), (300,), (1,)


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


def test_nothing_depends_on_where_memory_is():
    """Compilers ask whether arrays are near each other, and have another loop, with other sums, where they are."""
    source, x, found = random.Random(0), torch.randn(3, 5), []
    for _ in range(200):
        kept = [np.empty(source.randrange(1, 5000), np.float32) for _ in range(source.randrange(8))]
        kept += [torch.empty(source.randrange(1, 3000)) for _ in range(source.randrange(6))]
        torch.manual_seed(0)
        models = [nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4)) for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        for model in models:
            kept += [torch.empty(source.randrange(1, 300)) for _ in range(source.randrange(4))]
            DiffQuantizer(model, min_size=0, group_size=4, init_bits=3).no_optimizer()
            torch.manual_seed(2)
            model(x).square().sum().backward()
            step = [one.grad for one in model.parameters()]
            found = found or step
            assert all(same_bits(*pair) for pair in zip(found, step, strict=True))
        del kept


def test_large_weights_go_through_torchs_openmp(monkeypatch):
    parallel, calls = threads._openmp(), []
    if parallel is None:
        pytest.skip("torch is linked to another kind of OpenMP, or to none")
    monkeypatch.setattr(threads, "_openmp", lambda: lambda *args: (calls.append(args[2]), parallel(*args)))
    one_step(noisy_bag(Setting(group_size=1), (9 * TILE,)))
    assert calls == [torch.get_num_threads()] * 6  # four of the noise, two of the size


def test_a_node_for_each_weight_has_the_same_noise(device):
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
        monkeypatch.setitem(compiled.BUNDLE, "cpu", most)
        torch.manual_seed(1)
        model = Net().to(memory_format=torch.channels_last)
        DiffQuantizer(model, min_size=0, group_size=4, init_bits=3).no_optimizer()
        model(images()).square().sum().backward()
        found.append({name: param.grad for name, param in model.named_parameters()})
    assert found[0]["conv.weight"].is_contiguous(memory_format=torch.channels_last)
    for name, grad in found[0].items():
        assert same_bits(grad, found[1][name]) and grad.stride() == found[1][name].stride()


def test_bundles_are_of_neighbours_up_to_a_bound():
    sizes = [5, 5, 9, 1, 1, 30, 3, 40, 2, 2]
    found = [sizes[some] for some in bundle_slices([torch.empty(size) for size in sizes], 20)]
    assert found == [[5, 5, 9, 1], [1], [30], [3], [40], [2, 2]]
    assert list(bundle_slices([], 20)) == []


@pytest.mark.parametrize("group_size", [0, 4])
def test_weights_that_a_forward_does_not_use_have_no_gradient(group_size, each_way):
    """As without a quantizer: an optimizer with momentum then leaves them alone."""
    model = noisy_bag(Setting(group_size=group_size), (6, 8), (40,), (9,), device=each_way)
    first, _, third = model()
    (first.sum() + third.square().sum()).backward()
    assert model.w1.grad is None and model.w1_diffq.grad is None
    assert model.w0.grad is not None and (model.w2_diffq.grad != 0).any()


@pytest.mark.parametrize("group_size", [0, 8])
@pytest.mark.parametrize("frozen", ["w0", "w1_diffq"])
def test_what_is_frozen_has_no_gradient_and_the_others_theirs(frozen, group_size, each_way):
    found = []
    for freeze in (False, True):
        torch.manual_seed(2)
        model = noisy_bag(Setting(group_size=group_size), (6, 8), (300,), device=each_way)
        getattr(model, frozen).requires_grad_(not freeze)
        sum(value.square().sum() for value in model()).backward()
        found.append({name: one.grad for name, one in model.named_parameters()})
    assert found[1].pop(frozen) is None
    assert len(found[1]) == 3 and all(same_bits(found[0][name], grad) for name, grad in found[1].items())


def test_frozen_weights_cost_no_gradient_of_their_size(device, monkeypatch):
    kernels, given = compiled.backend(device), []
    plain = kernels.add_noise_backward
    monkeypatch.setattr(kernels, "add_noise_backward", lambda *args: (given.append(args[5]), plain(*args)))
    model = noisy_bag(Setting(group_size=8), (40,), (9,), device=device)
    model.w0.requires_grad_(False)
    sum(value.sum() for value in model()).backward()
    ((first, second),) = given
    assert first is None and second.shape == model.w1.shape


@pytest.mark.parametrize(("bundle", "first"), [(1, "12"), (150, "2"), (2**20, "")])
def test_a_backward_takes_the_gradients_of_a_bundle_before_it_goes_on(bundle, first, each_way, monkeypatch):
    """Else all would be in memory at its end, and distributed training could send none before."""
    monkeypatch.setitem(compiled.BUNDLE, each_way.type, bundle)
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3))).to(each_way)
    DiffQuantizer(model, min_size=0, group_size=4).no_optimizer()
    seen = []
    for number, layer in enumerate(model):
        layer.weight.register_post_accumulate_grad_hook(lambda _, number=number: seen.append(f"weight {number}"))
        layer.register_full_backward_hook(lambda *_, number=number: seen.append(f"layer {number}"))
    out = model(torch.randn(2, 8, requires_grad=True, device=each_way))
    if not hasattr(out.grad_fn, "_set_sequence_nr"):
        pytest.skip("this torch has an order of its own")
    out.sum().backward()
    early = {word[-1] for word in seen[: seen.index("layer 1")] if word.startswith("weight")}
    assert early == set(first if diffq.by_kernels(list(model.parameters())) else "12") and len(seen) == 6


def test_small_weights_stay_on_the_thread_that_calls(monkeypatch):
    """However many tiles they are: after a fork, OpenMP has no threads to give."""
    monkeypatch.setattr(threads, "_openmp", lambda: pytest.fail("OpenMP was asked"))
    one_step(noisy_bag(Setting(group_size=8), *[(16, 16)] * 100))


def marks(pointer):
    carray(pointer, 1)[0].count = 7


@pytest.mark.parametrize(("method", "error"), [("save", OSError(28, "No space left")), ("load", EOFError())])
def test_trouble_with_kept_code_costs_time_and_nothing_else(method, error, tmp_path, monkeypatch):
    def fail(*_args, **_more):
        tried.append(method)
        raise error

    tried = []
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    if method == "load":
        jobs.kernel(marks)
        assert list(tmp_path.rglob("*.nbc"))
    monkeypatch.setattr(caching.IndexDataCacheFile, method, fail)
    job = np.zeros(1, jobs.Job)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jobs.kernel(marks).address)(job.ctypes.data)
    assert job["count"] == [7] and tried == [method]
