"""Noise by compiled kernels, for many tensors at once: the formulas of noise.py, on a CPU (cpu/) or a GPU (cuda/).

Besides the noisy weights nothing of their size is kept: the backward draws the noise again. From one seed, CPU and
GPU draw the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .bits import Param, bits_param
from .draw import new_key, rank
from .groups import together
from .noise import run_early
from .pieces import Plan, plan_of

MOST = {"cpu": 2**21, "cuda": 2**23}  # entries of tensors that go together; their gradients come together, too
OLDEST = (7, 0)  # compute capability that Triton compiles for


@dataclass(frozen=True)
class How:
    """What kernels are told of all pieces. number: of the first one, among those of all tensors of a forward."""

    plan: Plan
    param: Param
    noise: str
    key: int
    number: int
    rank: int


def by_kernels(tensors: Sequence[Tensor]) -> bool:
    """Whether kernels can have them: float32 in the memory of a CPU or of one GPU, outside of torch.compile.

    Not if one is empty, and not while a CUDA graph is captured: it would draw the same noise at every replay.
    """
    plain = (Tensor, torch.nn.Parameter)  # no subclass, which may hold its data elsewhere
    device = tensors[0].device
    if torch.compiler.is_compiling() or device.type not in MOST:
        return False
    if not all(
        type(one) in plain and one.dtype == torch.float32 and one.device == device and one.data_ptr()
        for one in tensors
    ):
        return False
    return device.type == "cpu" or (not torch.cuda.is_current_stream_capturing() and usable(device))


def backend(device: torch.device) -> Any:
    """The package of kernels for tensors on that device; imported now, as numba takes its time."""
    return import_module(f".{device.type}", __package__)


def add_noise_to_all(
    weights: Sequence[Tensor],
    logits: Sequence[Tensor],
    group_size: int,
    param: Param,
    noise: str,
    apart: bool = False,
) -> Iterator[Tensor]:
    """The noisy weights, one by one; each of the shape and memory format of its weight, see noise.add_noise.

    All must be for kernels, `by_kernels`. apart: each has a node of its own in autograd's graph, for backwards that
    go through it tensor by tensor; the noise is the same.
    """
    device = weights[0].device
    function, key, number, own = backend(device).AddNoise, new_key(), 0, rank()
    some_of = (slice(i, i + 1) for i in range(len(weights))) if apart else together(weights, MOST[device.type])
    for some in some_of:
        plan = plan_of(tuple(one.numel() for one in weights[some]), group_size)
        how = How(plan, param, noise, key, number, own)
        number += len(plan.pieces)
        noisy: tuple[Tensor, ...] = function.apply(how, *logits[some], *weights[some])
        run_early(noisy[0])
        yield from noisy


@cache
def usable(device: torch.device) -> bool:
    """Whether this GPU gives, noise and gradients, what a CPU gives; if not, torch does it, and a warning says so.

    Triton compiles on the user's machine: for hardware, with drivers and a C compiler that nobody has tried.
    """
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < OLDEST:
        return False
    try:
        here, there = _trial(torch.device("cpu")), _trial(device)
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(one, other.cpu(), rtol=1e-3, atol=1e-5)
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        warnings.warn(f"noise on {device} is slower than it could be, kernels fail: {what}", stacklevel=2)
        return False
    return True


@torch.enable_grad()  # type: ignore[untyped-decorator]
@torch.inference_mode(False)
def _trial(device: torch.device) -> list[Tensor]:
    """Noise and gradients of two small tensors, from a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes = ((16, 8, 3, 3), torch.channels_last), ((5000,), torch.contiguous_format)
        start = [torch.randn(shape).to(device, memory_format=layout) for shape, layout in shapes]
        weights = [one.requires_grad_() for one in start]
        logits = [torch.randn(-(-one.numel() // 8)).to(device).requires_grad_() for one in weights]
        noisy = list(add_noise_to_all(weights, logits, 8, bits_param(2, 15), "gaussian"))
    return [*noisy, *torch.autograd.grad([(one**2).sum() for one in noisy], [*weights, *logits])]
