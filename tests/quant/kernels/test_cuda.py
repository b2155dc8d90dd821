"""A GPU's kernels: memory formats, how often they are launched, and what Triton makes of them."""

import itertools
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.quant_models import assert_forward_and_gradients, noisy_bag
from helpers.quant_reference import Setting

from diffq_exp.quant import quantizer_of
from diffq_exp.quant.kernels import autograd as compiled
from diffq_exp.quant.kernels import operands
from diffq_exp.quant.kernels.dispatch import trial

triton = pytest.importorskip("triton", reason="this torch has no Triton")
FORMATS = {4: (torch.contiguous_format, torch.channels_last), 5: (torch.contiguous_format, torch.channels_last_3d)}
SMALL = (6, 5, 1, 4), (4, 5, 2, 3, 3)
LARGE = (3, 230, 2, 3), (6, 700, 1, 1), (1, 30, 70, 2)  # tiles have 4096 entries
SHAPES = *SMALL, *(pytest.param(shape, marks=pytest.mark.long) for shape in LARGE)


@pytest.mark.parametrize("device", ["cpu", "cuda"], indirect=True)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_and_gradients_in_memory_formats_of_their_own(shape, device):
    setting = Setting(group_size=5, init_bits=3)
    for weight_format, grad_format in itertools.product(FORMATS[len(shape)], repeat=2):
        model = noisy_bag(setting, shape, device=device)
        model.w0.data = model.w0.data.to(memory_format=weight_format)
        (value,) = assert_forward_and_gradients(model, setting, grad_format=grad_format)
        assert value.is_contiguous(memory_format=weight_format)


def test_operands_begin_where_triton_need_not_compile_anew():
    launch = compiled.backend(torch.device("cuda")).launch
    rows = launch.upload(torch.device("cpu"), {name: np.arange(5) + at for at, name in enumerate("abc")})
    assert [row.data_ptr() % 16 for row in rows.values()] == [0, 0, 0]
    assert [row[:5].tolist() for row in rows.values()] == [[at + i for i in range(5)] for at in range(3)]


def test_a_backward_is_not_captured_without_its_forward(monkeypatch):
    """A replay would read addresses of another time."""
    launch = compiled.backend(torch.device("cuda")).launch
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="a CUDA graph of the backward alone cannot be captured"):
        launch.upload(torch.device("cuda"), {"grad": np.zeros(3, np.int64)})


def test_huge_tensors_are_made_row_major():
    for entries, expected in ((2**13, True), (2**16, False)):  # times 2^15
        tensor = torch.empty(2, entries // 2, 2**8, 2**7, device="meta").to(memory_format=torch.channels_last)
        assert operands.is_channels_last(tensor) == expected


@pytest.mark.parametrize(("group_size", "expected"), [(8, 5), (4096, 5), (5000, 6), (0, 6)])
def test_launches_do_not_grow_with_the_tensors(group_size, expected, monkeypatch):
    cuda, launched = compiled.backend(torch.device("cuda")), []
    monkeypatch.setattr(cuda.backend, "launch", lambda kernel, *_: launched.append(kernel))
    monkeypatch.setattr(compiled, "backend", lambda _: cuda)
    for count in (1, 40):
        model = noisy_bag(Setting(group_size=group_size), *[(5000,)] * count)
        launched.clear()
        sum(value.sum() for value in model()).backward()
        assert len(launched) == expected
        quantizer_of(model).model_size().backward()
        assert len(launched) == expected + 3


def test_the_trial_of_a_gpu_runs_every_kernel(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("by the interpreter")
    cuda, launched = compiled.backend(torch.device("cuda")), set()
    plain = cuda.launch.launch
    monkeypatch.setattr(cuda.backend, "launch", lambda kernel, *args: (launched.add(kernel), plain(kernel, *args)))
    monkeypatch.setattr(compiled, "backend", lambda _: cuda)
    trial(torch.device("cpu"))
    kinds = type(cuda.kernels.find_extremes)
    all_of_them = {name for name, one in vars(cuda.kernels).items() if isinstance(one, kinds)}
    helpers = {*vars(import_module("diffq_exp.quant.kernels.cuda.arithmetic")), "_logits"}
    assert {one.fn.__name__ for one in launched} == all_of_them - helpers


COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from diffq_exp.quant.kernels.cuda import kernels, launch
from diffq_exp.quant.kernels.tiles import tiling_of

kinds = dict.fromkeys(("lows", "highs", "at_low", "at_high"), "*i32")
kinds |= dict.fromkeys(("low", "high", "sums", "parts", "cells", "size", "last", "factor"), "*fp32")
kinds |= {"key": "i64", "number": "i32", "rank": "i32"} | dict.fromkeys(("base", "rise", "offset"), "fp32")
own = [kernel for kernel in vars(kernels).values() if isinstance(kernel, type(kernels.find_extremes))]
for words in sys.argv[1:]:
    kind, chip, warp, group_size = words.split()
    target = GPUTarget(kind, int(chip) if chip.isdigit() else chip, int(warp))
    block = launch.block_of(tiling_of((100_000,), int(group_size)))
    for kernel in own:
        if kernel.__module__ == kernels.__name__ and kernel.fn.__name__[0] != "_":
            given = {name: block[name] for name in kernel.arg_names if name in block}
            signature = {
                name: "constexpr" if name in block else kinds.get(name, "*i64") for name in kernel.arg_names
            }
            made = compile(ASTSource(kernel, signature, given), target=target, options=launch.OPTIONS)
            print(kernel.fn.__name__, len(list(made.asm.values())[-1]))
"""


@pytest.mark.long  # the interpreter runs the same kernels in the other tests
@pytest.mark.parametrize(
    "targets",
    [
        ("cuda 80 32 72",),
        ("cuda 90 32 0",),
        ("hip gfx942 64 8",),
    ],
    ids=str,
)
def test_triton_compiles_them_without_a_gpu(targets):
    """To machine code, for groups that are split, a power of two or neither; the interpreter allows more."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, *targets]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[3], env=environment, timeout=250
    )
    if "linker" in done.stderr:
        pytest.skip("this Triton links for AMD's with a linker that is not here")
    assert done.returncode == 0, done.stderr
    made = [line.split() for line in done.stdout.splitlines()]
    assert len({name for name, _ in made}) == 8 and len(made) == 8 * len(targets)
    assert all(int(size) > 1000 for _, size in made)
