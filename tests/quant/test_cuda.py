"""A GPU's kernels: memory formats, what Triton makes of them, and what happens where it cannot."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from quant_models import noisy_bag
from quant_philox import noise_after_seed
from quant_reference import Setting, named_logits, noisy_weight

from diffq_exp.quant import compiled

triton = pytest.importorskip("triton", reason="this torch has no Triton")
FORMATS = {4: (torch.contiguous_format, torch.channels_last), 5: (torch.contiguous_format, torch.channels_last_3d)}
SHAPES = (3, 300, 2, 3), (6, 5, 1, 4), (20, 700, 1, 1), (1, 33, 70, 2), (4, 5, 2, 3, 3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_and_gradients_in_memory_formats_of_their_own(shape, device):
    setting = Setting(group_size=5, init_bits=3)
    for weight_format, grad_format in itertools.product(FORMATS[len(shape)], repeat=2):
        model = noisy_bag(setting, shape, (40,), device=device)
        model.w0.data = model.w0.data.to(memory_format=weight_format)
        eps = noise_after_seed(3, [model.w0.numel(), 40], 5, setting.noise)[0].view(shape)
        torch.manual_seed(3)
        value = model()[0]
        grad = torch.randn(shape).to(memory_format=grad_format)
        value.backward(grad.to(device))
        logits = named_logits(model)["w0"]
        w, l_ = (one.detach().cpu().double().requires_grad_() for one in (model.w0, logits))
        expected = noisy_weight(w, l_, eps, setting)
        exact = torch.autograd.grad(expected, [w, l_], grad.double())
        torch.testing.assert_close(value.cpu().double(), expected, rtol=1e-6, atol=1e-6)
        assert value.is_contiguous(memory_format=weight_format)
        for found, one in zip((model.w0.grad, logits.grad), exact, strict=True):
            torch.testing.assert_close(found.cpu().double(), one, rtol=1e-5, atol=1e-5 * one.abs().max().item())


@pytest.mark.parametrize("together", [1, 2**62])
def test_the_trial_compares_what_it_should(device, together, monkeypatch):
    """The same from a CPU and from a GPU, or its interpreter; however weights go together."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "diffq_exp.quant.cpu", REAL)
        expected = compiled._trial(torch.device("cpu"))
    monkeypatch.setitem(compiled.MOST, device.type, together)
    state = torch.get_rng_state()
    found = compiled._trial(device)
    assert torch.equal(state, torch.get_rng_state()) and len(found) == len(expected) == 6
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-5)
        assert one.abs().max() > 0


REAL = compiled.backend(torch.device("cpu"))


@pytest.mark.parametrize("fault", ["raises", "is wrong"])
def test_a_gpu_that_fails_the_trial_is_torchs(fault, monkeypatch):
    device, trial = torch.device("cuda", 0), compiled._trial

    def faulty(where):
        if where == device and fault == "raises":
            raise RuntimeError("no C compiler\nfound")
        values = trial(torch.device("cpu"))
        return [values[0] * 1.01, *values[1:]] if where == device else values

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(compiled, "_trial", faulty)
    what = "no C compiler found" if fault == "raises" else "Tensor-likes are not close"
    with pytest.warns(UserWarning, match=f"noise on cuda:0 is slower than it could be, kernels fail: {what}"):
        assert not compiled.usable.__wrapped__(device)


def test_a_gpu_that_gives_what_a_cpu_gives_is_used(monkeypatch):
    trial = compiled._trial
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(compiled, "_trial", lambda _: trial(torch.device("cpu")))
    assert compiled.usable.__wrapped__(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
    assert not compiled.usable.__wrapped__(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    assert not compiled.usable.__wrapped__(torch.device("cuda", 0))


COMPILE = """
import sys
from triton import compile, jit
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from diffq_exp.quant.cuda import kernels, launch
from diffq_exp.quant.pieces import plan_of

kinds = dict.fromkeys(("lows", "highs", "at_low", "at_high"), "*i32")
kinds |= dict.fromkeys(("low", "high", "sums", "to_scale", "cells", "size", "last", "factor"), "*fp32")
kinds |= {"key": "i64", "number": "i32", "rank": "i32"} | dict.fromkeys(("base", "rise", "offset"), "fp32")
*target, group_size = sys.argv[1:]
target = GPUTarget(target[0], int(target[1]) if target[1].isdigit() else target[1], int(target[2]))
tile = launch.tile_of(plan_of((100_000,), int(group_size)))
for name, kernel in vars(kernels).items():
    if isinstance(kernel, type(kernels.look)) and kernel.__module__ == kernels.__name__ and name[0] != "_":
        given = {one: tile[one] for one in kernel.arg_names if one in tile}
        signature = {one: "constexpr" if one in tile else kinds.get(one, "*i64") for one in kernel.arg_names}
        options = {"num_warps": 8, "enable_fp_fusion": True}
        made = compile(ASTSource(kernel, signature, given), target=target, options=options)
        print(name, len(list(made.asm.values())[-1]))
"""


@pytest.mark.parametrize("group_size", [0, 8, 72])
@pytest.mark.parametrize("target", [("cuda", "80", "32"), ("cuda", "90", "32"), ("hip", "gfx942", "64")], ids=str)
def test_triton_compiles_them_without_a_gpu(target, group_size):
    """To machine code; the interpreter allows what compilers do not."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, *target, str(group_size)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment, timeout=250
    )
    assert done.returncode == 0, done.stderr
    made = dict(line.split() for line in done.stdout.splitlines())
    assert len(made) == 8 and all(int(size) > 1000 for size in made.values())
