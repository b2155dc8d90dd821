"""Compiled kernels on the threads that torch has.

torch's threads belong to OpenMP, and wait busily for a while after each operation: threads of our own would have to
share the cores with them. So kernels run on torch's own, by the function of OpenMP's library that compiled loops
call, in the very library that torch is linked to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .draw import Array
from .jobs import Job
from .pieces import Plan

FEW = 2**15  # entries, that torch, too, takes on one thread


def run(kernel: Any, plan: Plan, **fields: Array | float) -> None:
    """Run a kernel of kernels.py over the pieces of a plan; fields: the rest of its job, arrays by address."""
    job = np.zeros(1, Job)
    for name, value in {"pieces": plan.pieces, "count": len(plan.pieces), **fields}.items():
        job[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    openmp = _openmp() if plan.entries > FEW else None
    if openmp is None:
        kernel.ctypes(job.ctypes.data)
    else:  # on all of them, however few pieces there are: those left out would end, and be made again
        openmp(kernel.address, job.ctypes.data, torch.get_num_threads(), 0)


def addresses(tensors: Sequence[Tensor | None]) -> Array:
    """Where they lie, int64 (T,); 0 for None."""
    return np.array([0 if one is None else one.data_ptr() for one in tensors])


def flat(tensors: Sequence[Tensor | None], entries: Sequence[int]) -> list[Any]:
    """Tensors as kernels read them: row-major, without a pending sign, with memory of their own; None for None.

    Raises: RuntimeError if one is not float32 in a CPU's memory with its number of entries. Kernels look at none of
    that, and autograd does not see it change, by `model.half()` between forward and backward for example.
    """
    return [None if one is None else _flat(one, count) for one, count in zip(tensors, entries, strict=True)]


def _flat(tensor: Tensor, entries: int) -> Tensor:
    if not (tensor.is_cpu and tensor.dtype == torch.float32 and tensor.numel() == entries):
        found = f"{tensor.dtype} on {tensor.device} with {tensor.numel()} entries"
        raise RuntimeError(
            f"{found} instead of torch.float32 on cpu with {entries}: a weight or its logits were replaced, "
            "by model.half() perhaps, after the quantizer was attached or between forward and backward"
        )
    tensor = tensor.contiguous().resolve_neg()
    return tensor if tensor.data_ptr() else tensor.clone()  # zeros that autograd has without writing them


@cache
def _openmp() -> Any:
    """GOMP_parallel(function, argument, threads, flags), which GNU's and LLVM's OpenMP have; None without it."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # of what this library is linked to
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel
