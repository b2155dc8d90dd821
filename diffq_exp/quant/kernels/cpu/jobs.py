"""The argument of a compiled kernel, a struct of numbers and addresses, and how kernels read it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, cfunc, from_dtype, njit, types
from numba.extending import intrinsic

from ..tiles import Tile

HERE = Path(__file__).parent
NAMES = "cpu/jobs.py", "cpu/arithmetic.py", "tiles.py", "cells.py", "../coded_bits.py"
FILES = [HERE.parent / name for name in NAMES]
VERSION = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()[:8]

Job = np.dtype(
    [
        ("next", "i8"),  # the first tile that no thread has taken; take() relies on its being the first field
        ("count", "i8"),  # of tiles
        ("group_size", "i8"),
        *((name, "u8") for name in ("key", "number", "rank")),  # of the noise; number: of the first tile
        *((name, "f4") for name in ("base", "rise", "offset")),
        # addresses: of tiles, (P,); of the addresses of float32 tensors, (T,); of float32 numbers
        ("tiles", "i8"),
        *((name, "i8") for name in ("weight", "logits", "noisy", "grad", "grad_weight", "grad_logits")),
        ("cells", "i8"),  # (CELLS,)
        ("factor", "i8"),  # (1,)
        *((name, "i8") for name in ("low", "high", "to_low", "to_high", "size", "last")),  # (T,)
        # size, last: how many entries groups have, and the last one
        *((name, "i8") for name in ("lows", "highs", "at_low", "at_high", "sums")),  # (P,)
        ("steps", "i8"),  # (T,)
        ("rounded", "i8"),  # whether weights are rounded, or have noise
        *((name, "i8") for name in ("blocks", "slopes", "of_row", "of_column")),  # as weight: (T,)
        *((name, "i8") for name in ("columns", "places")),  # (T,)
        (VERSION, "i1"),  # numba keeps kernels by the date of kernels.py and by this type: now by these FILES, too
    ]
)

STRICT = {"contract", "nsz", "arcp"}  # nan and infinities count
IN_ORDER: dict[str, Any] = {"fastmath": STRICT, "error_model": "numpy"}  # 1 / 0 is inf
IN_ANY_ORDER = {**IN_ORDER, "fastmath": STRICT | {"reassoc"}}  # for sums

inner, adding = njit(**IN_ORDER), njit(**IN_ANY_ORDER)  # functions that kernels call
exact = njit(fastmath={"nsz"}, error_model="numpy")  # one that has torch's results to the bit


def kernel(function: Any) -> Any:
    """A C function of a pointer to a job. numba keeps what it compiles."""
    signature = types.void(types.CPointer(from_dtype(Job)))
    try:
        return cfunc(signature, cache=True, **IN_ORDER)(function)
    except (
        Exception
    ):  # of the cache: no folder for it, a full disk, a damaged file; an error in the function is raised below
        return cfunc(signature, **IN_ORDER)(function)


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), build


@intrinsic
def take(typing: Any, job: Any) -> Any:
    """job.next, which goes up by one in the same moment."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = context.get_value_type(types.int64)
        return builder.atomic_rmw("add", builder.bitcast(args[0], integer.as_pointer()), integer(1), "monotonic")

    return types.int64(job), build


@inner
def tiles_of(job: Any) -> Any:
    return carray(_pointer(job.tiles), job.count, Tile)


@inner
def floats(address: Any, count: Any) -> Any:
    return carray(_pointer(address), count, np.float32)


@inner
def integers(address: Any, count: Any) -> Any:
    return carray(_pointer(address), count, np.int64)


@inner
def at(address: Any, place: Any) -> Any:
    """One of several numbers."""
    return carray(_pointer(address), place + 1, np.float32)[place]


@inner
def has(addresses: Any, tensor: Any) -> Any:
    """Whether there is such a tensor; its address is 0 otherwise."""
    return carray(_pointer(addresses), tensor + 1, np.int64)[tensor] != 0


@inner
def entries_of(addresses: Any, tensor: Any, start: Any, stop: Any) -> Any:
    """Entries of one of several tensors."""
    return floats(carray(_pointer(addresses), tensor + 1, np.int64)[tensor], stop)[start:stop]
