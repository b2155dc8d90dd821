"""Whether kernels can process a model's tensors; if they cannot process each of them, torch processes them all."""

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
from ..noise import Gaussian
from .autograd import BUNDLE, AddNoise, Bundle, SumBits
from .tiles import tiling_of

OLDEST = (7, 0)  # compute capability that Triton compiles for


def by_kernels(tensors: Sequence[Tensor]) -> bool:
    """Whether kernels can process them: float32 in the memory of a CPU or of one GPU, outside of torch.compile.

    Not if a tensor is empty, and not while a CUDA graph is captured: each replay would have the same noise.
    """
    plain = (Tensor, torch.nn.Parameter)  # no subclass, which may hold its data elsewhere
    device = tensors[0].device
    if torch.compiler.is_compiling() or device.type not in BUNDLE:
        return False
    if not all(
        type(tensor) in plain and tensor.dtype == torch.float32 and tensor.device == device and tensor.data_ptr()
        for tensor in tensors
    ):
        return False
    return device.type == "cpu" or (not torch.cuda.is_current_stream_capturing() and usable(device))


@cache
def usable(device: torch.device) -> bool:
    """Whether this GPU's kernels give the results of a CPU's, for two small tensors; if not, a warning says so.

    Triton compiles on the user's machine: for hardware, with drivers and a C compiler that nobody has tried.
    """
    if os.environ.get("TRITON_INTERPRET", "0") != "0":  # which would look for a GPU's memory in the CPU's
        return False
    try:
        if find_spec("triton") is None or torch.cuda.get_device_capability(device) < OLDEST:
            return False
        expected, actual = trial(torch.device("cpu")), trial(device)
        for tensor, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(other, tensor.cpu(), rtol=1e-3, atol=1e-4)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        warnings.warn(f"training on {device} is slower than it could be, kernels fail: {reason}", stacklevel=2)
        return False
    return True


@torch.inference_mode(False)  # which switches gradients on
def trial(device: torch.device) -> list[Tensor]:
    """The results of all kernels for two small tensors, in groups of 8 and whole; no generator advances."""
    shapes = ((16, 8, 3, 3), torch.channels_last), ((9000,), torch.contiguous_format)
    entries, param, results = (16 * 8 * 3 * 3, 9000), noise_param(2, 15), list[Tensor]()
    source = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float32, device="cpu")

    for group_size in (8, 0):
        weights = [normal(*shape).to(device, memory_format=layout) for shape, layout in shapes]
        logits = [normal(group_count(count, group_size)).to(device) for count in entries]
        inputs = [tensor.requires_grad_() for tensor in (*logits, *weights)]
        bundle = Bundle(tiling_of(entries, group_size), param, Gaussian, key=2**40 + 1, number=7, rank=1)
        noisy = AddNoise.apply(bundle, *inputs)  # type: ignore[no-untyped-call]
        size, highest = SumBits.apply(entries, group_size, param, *logits)  # type: ignore[no-untyped-call]
        loss = sum((tensor**2).sum() for tensor in noisy) + size / 100
        results += [*noisy, size, highest, *torch.autograd.grad(loss, inputs)]
    return [tensor.detach() for tensor in results]
