"""One thread of torch in each test process, as many processes as cores, and no W&B but where a test is about it.

Without a GPU, its kernels run by the interpreter that Triton has.
"""

import os
import sys
from collections import defaultdict
from zlib import crc32

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in what tests start
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process that a test starts would compile the package anew

import torch

sys.dont_write_bytecode = False

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: a GPU's kernels then run on a CPU, by numpy

MANY = 4  # sets of parameters of one test


@pytest.hookimpl(tryfirst=True)  # before `-m "not long"` is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test with many sets of parameters, mark all but the first and a quarter of the others as long.

    The quarter is drawn by the names of the sets: every n-th would leave out values of a product of lists.
    """
    by_test: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        by_test[item.nodeid.partition("[")[0]].append(item)
    for _, *others in (sets for sets in by_test.values() if len(sets) > MANY):
        for item in others:
            if crc32(item.nodeid.encode()) % 4:
                item.add_marker(pytest.mark.long)
