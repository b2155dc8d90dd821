"""Whether kernels can have a model's tensors; if one cannot be theirs, all are torch's (noise.py, size.py)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from ...stored.groups import group_count
from ..bits import noise_param
from .autograd import BUNDLE, AddNoise, Bundle, SumBits
from .tiles import plan_of

OLDEST = (7, 0)  # compute capability that Triton compiles for


def by_kernels(tensors: Sequence[Tensor]) -> bool:
    """Whether kernels can have them: float32 in the memory of a CPU or of one GPU, outside of torch.compile.

    Not if one is empty, and not while a CUDA graph is captured: it would draw the same noise at every replay.
    """
    plain = (Tensor, torch.nn.Parameter)  # no subclass, which may hold its data elsewhere
    device = tensors[0].device
    if torch.compiler.is_compiling() or device.type not in BUNDLE:
        return False
    if not all(
        type(one) in plain and one.dtype == torch.float32 and one.device == device and one.data_ptr()
        for one in tensors
    ):
        return False
    return device.type == "cpu" or (not torch.cuda.is_current_stream_capturing() and usable(device))


@cache
def usable(device: torch.device) -> bool:
    """Whether this GPU's kernels give what a CPU's give, for two small tensors; if not, a warning says so.

    Triton compiles on the user's machine: for hardware, with drivers and a C compiler that nobody has tried.
    """
    if os.environ.get("TRITON_INTERPRET", "0") != "0":  # which would look for a GPU's memory in the CPU's
        return False
    try:
        if find_spec("triton") is None or torch.cuda.get_device_capability(device) < OLDEST:
            return False
        here, there = trial(torch.device("cpu")), trial(device)
        for one, other in zip(here, there, strict=True):
            torch.testing.assert_close(one, other.cpu(), rtol=1e-3, atol=1e-4)
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        warnings.warn(f"training on {device} is slower than it could be, kernels fail: {what}", stacklevel=2)
        return False
    return True


@torch.inference_mode(False)  # which switches gradients on
def trial(device: torch.device) -> list[Tensor]:
    """What all kernels give for two small tensors, in groups of 8 and as wholes; draws from nobody's generator."""
    shapes = ((16, 8, 3, 3), torch.channels_last), ((9000,), torch.contiguous_format)
    entries, param, found = (16 * 8 * 3 * 3, 9000), noise_param(2, 15), list[Tensor]()
    source = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float32, device="cpu")

    for group_size in (8, 0):
        weights = [normal(*shape).to(device, memory_format=layout) for shape, layout in shapes]
        logits = [normal(group_count(count, group_size)).to(device) for count in entries]
        inputs = [one.requires_grad_() for one in (*logits, *weights)]
        bundle = Bundle(plan_of(entries, group_size), param, "gaussian", key=2**40 + 1, number=7, rank=1)
        noisy = AddNoise.apply(bundle, *inputs)  # type: ignore[no-untyped-call]
        size, highest = SumBits.apply(entries, group_size, param, *logits)  # type: ignore[no-untyped-call]
        loss = sum((one**2).sum() for one in noisy) + size / 100
        found += [*noisy, size, highest, *torch.autograd.grad(loss, inputs)]
    return [one.detach() for one in found]
