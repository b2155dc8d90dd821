"""What is done for a quick start, and what each of it saves (two cores, nothing else at work).

- here: torch is imported without Python's cyclic garbage collector: 0.6 s of a run;
- data/digits.py and data/split.py read scikit-learn's file and split as it does, without importing it: 0.7 s;
- runs/job.py is what imports torch, so that a mistake in a command line is said 3 s sooner;
- command/help.py and the schema need no Hydra: --help takes 0.1 s instead of 0.4 s;
- command/compose.py sets plain keys in a copy of what Hydra composed: 0.1 s for each job of a sweep;
- hydra_plugins/.../process_launcher.py forks the jobs of a sweep from a process that has imported torch: 3 s a job.
"""

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
