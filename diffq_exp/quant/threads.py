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
from .jobs import Job, Piece

FEW = 8  # pieces, 32,768 entries: what torch, too, does on one thread


def run(kernel: Any, pieces: Array, **fields: Array | float) -> None:
    """Run a kernel of kernels.py over (P,) pieces; fields: the rest of its job, arrays by their address."""
    assert pieces.dtype == Piece
    job = np.zeros(1, Job)
    for name, value in {"pieces": pieces, "count": len(pieces), **fields}.items():
        job[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    openmp = _openmp() if len(pieces) > FEW else None
    if openmp is None:
        kernel.ctypes(job.ctypes.data)
    else:  # on all of them, however few pieces there are: those left out would end, and be made again
        openmp(kernel.address, job.ctypes.data, torch.get_num_threads(), 0)


def addresses(tensors: Sequence[Tensor | None]) -> Array:
    """Where they lie, int64 (T,); 0 for None."""
    return np.array([0 if one is None else one.data_ptr() for one in tensors])


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
