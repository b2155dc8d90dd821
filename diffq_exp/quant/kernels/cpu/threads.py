"""Compiled kernels on the threads that torch has.

torch's threads belong to OpenMP, and wait busily for a while after each operation: threads of our own would have to
share the cores with them. So kernels run on torch's own, by the function of OpenMP's library that compiled loops
call, in the very library that torch is linked to.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import torch

from ..blocks import Blocks
from ..cells import Array
from ..tiles import Tiling
from .jobs import Job

FEW = 2**15  # entries; torch, too, takes so few on a single thread


def run(kernel: Any, tiling: Tiling | Blocks, **fields: Array | float) -> None:
    """Run a kernel of kernels.py over the tiles of a tiling; fields: the rest of its job, arrays by address."""
    job = np.zeros(1, Job)
    for name, value in {"tiles": tiling.tiles, "count": len(tiling.tiles), **fields}.items():
        job[name] = value.ctypes.data if isinstance(value, np.ndarray) else value
    openmp = _openmp() if tiling.total > FEW else None
    if openmp is None:
        kernel.ctypes(job.ctypes.data)
    else:  # on all threads, however few tiles there are: OpenMP ends those that are left out, and makes them again
        openmp(kernel.address, job.ctypes.data, torch.get_num_threads(), 0)


@cache
def _openmp() -> Any:
    """GOMP_parallel(function, argument, threads, flags), which GNU's and LLVM's OpenMP have; None without it."""
    try:
        parallel = ctypes.CDLL(torch._C.__file__).GOMP_parallel  # of the library that torch is linked to
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel
