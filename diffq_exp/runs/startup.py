"""Importing torch without Python's cyclic garbage collector."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(module: str) -> Iterator[None]:
    """For the first import of a large module: what is alive after it is left alone by the collector for good.

    torch is 300,000 objects that stay for as long as the process lives. To look for garbage among them takes 0.2 s
    while they are imported, 0.4 s when the process ends, and time at each full collection in between.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
