"""Which tensors kernels get, and the trial that a GPU has to pass."""

import pytest
import torch
from helpers.quant_models import noisy_bag
from helpers.quant_reference import Setting
from torch import nn

from diffq_exp.quant import quantizer_of
from diffq_exp.quant.kernels import autograd as compiled
from diffq_exp.quant.kernels import dispatch as choice
from diffq_exp.quant.kernels.dispatch import by_kernels, trial, usable

GPU = torch.device("cuda", 0)


class Own(torch.Tensor):
    """A subclass."""


OTHERS = {
    "float64": torch.ones(3, dtype=torch.float64),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.ones(0),
    "a subclass": torch.ones(3).as_subclass(Own),
}


@pytest.mark.parametrize("what", OTHERS)
def test_one_that_kernels_cannot_have_makes_all_torchs(what):
    usual = [torch.ones(3), nn.Parameter(torch.ones(3))]
    assert by_kernels(usual)
    assert not by_kernels([*usual, OTHERS[what]]) and not by_kernels([OTHERS[what], *usual])


def test_none_under_torch_compile(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not by_kernels([torch.ones(3)])


class Elsewhere:
    """What by_kernels asks a tensor."""

    dtype = torch.float32

    def __init__(self, device):
        self.device = torch.device(device)

    def data_ptr(self):
        return 1


@pytest.mark.parametrize(
    "devices", [["xpu:0"], ["cuda:0", "cuda:1"], ["cuda:0", "cpu"], ["cpu", "cuda:0"]], ids=str
)
def test_one_device_that_has_kernels(devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(choice, "usable", lambda _: True)
    monkeypatch.setattr(choice, "Tensor", Elsewhere)
    assert not by_kernels([Elsewhere(device) for device in devices])
    assert by_kernels([Elsewhere("cuda:1"), Elsewhere("cuda:1")])


@pytest.mark.parametrize(("capturing", "passes"), [(False, True), (True, True), (False, False)])
def test_on_a_gpu_that_passes_the_trial_and_captures_no_graph(capturing, passes, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(choice, "usable", lambda device: passes and device == GPU)
    monkeypatch.setattr(choice, "Tensor", Elsewhere)
    assert by_kernels([Elsewhere(GPU)]) == (passes and not capturing)


@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_a_gpu_gives_what_a_cpu_gives(device):
    """Or its interpreter does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "backend", REAL)
        expected = trial(torch.device("cpu"))
    found = trial(device)
    assert len(found) == len(expected) == 16
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-5)
        assert one.abs().max() > 1e-3 and not one.requires_grad


REAL = compiled.backend


def test_the_trial_touches_nothing_of_the_user(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("the GPUs' generators were set"))
    expected, state = trial(torch.device("cpu")), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.inference_mode():
            found = trial(torch.device("cpu"))
        with torch.no_grad():
            trial(torch.device("cpu"))
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.fixture
def on_gpu(monkeypatch):
    """As if there were one; -> a way to set what it gives."""
    pytest.importorskip("triton", reason="this torch has no Triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def gives(change):
        on_cpu = trial(torch.device("cpu"))
        monkeypatch.setattr(choice, "trial", lambda where: change(on_cpu) if where == GPU else on_cpu)

    return gives


@pytest.mark.parametrize("place", range(16))
def test_whatever_a_gpu_gives_wrong_a_warning_says_so(place, on_gpu):
    on_gpu(lambda values: [one * 1.01 if at == place else one for at, one in enumerate(values)])
    with pytest.warns(
        UserWarning, match="training on cuda:0 is slower than it could be, kernels fail: (Tensor-likes|Scalars)"
    ):
        assert not usable.__wrapped__(GPU)


def test_a_gpu_that_triton_cannot_compile_for(on_gpu):
    def fails(_):
        raise RuntimeError("no C compiler\nfound")

    on_gpu(fails)
    with pytest.warns(UserWarning, match="kernels fail: no C compiler found"):
        assert not usable.__wrapped__(GPU)


@pytest.mark.parametrize(
    ("capability", "triton", "expected"), [((8, 0), 1, True), ((6, 1), 1, False), ((8, 0), None, False)]
)
def test_a_gpu_that_passes_is_used_and_old_ones_are_not_tried(capability, triton, expected, on_gpu, monkeypatch):
    on_gpu(lambda values: values)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(choice, "find_spec", lambda _: triton)
    assert usable.__wrapped__(GPU) == expected
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not usable.__wrapped__(GPU)


def test_the_noise_of_a_forward_does_not_depend_on_bundles(device, monkeypatch):
    found = []
    for most in (1, 500, 2**62):
        monkeypatch.setitem(compiled.BUNDLE, device.type, most)
        torch.manual_seed(1)
        model = noisy_bag(Setting(group_size=8), (20, 15), (9, 9), (400,), device=device)
        values = model()
        (sum(value.square().sum() for value in values) + quantizer_of(model).model_size()).backward()
        found.append([*values, *(one.grad for one in model.parameters())])
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))
