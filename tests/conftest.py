"""One thread of torch in each test process, as many processes as cores, and no W&B but where a test is about it.

Without a GPU, its kernels run by the interpreter that Triton has.
"""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in what tests start
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process that a test starts would compile the package anew

import torch

sys.dont_write_bytecode = False

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: a GPU's kernels then run on a CPU, by numpy
