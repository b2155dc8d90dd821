"""The memory that a process keeps: page faults, counted in processes of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import resource, torch
from diffq_exp.machine import keep_freed_memory
kept = keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(2**24), torch.zeros(2**23)
before = faults()
for _ in range(10):
    one, other = torch.zeros(2**24), torch.zeros(2**23)  # 64 and 32 MB
    del one, other
print(kept, faults() - before)
"""


TOLD = {"MALLOC_MMAP_THRESHOLD_": "1000000", "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")


def counted(**variables):
    own = {
        name: value for name, value in os.environ.items() if name not in TOLD and name != "MALLOC_TRIM_THRESHOLD_"
    }
    own["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env={**own, **variables}, capture_output=True, text=True, check=True
    )
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.fixture(scope="module")
def told():
    """Where the environment says that memory is to go back."""
    return {variable: counted(**{variable: value}) for variable, value in TOLD.items()}


@pytest.mark.parametrize("variables", [{}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_freed_memory_is_used_again(variables, told):
    kept, faults = counted(**variables)
    assert kept and 3 * faults < min(given_back for _, given_back in told.values())


@pytest.mark.parametrize("variable", TOLD)
def test_what_the_environment_says_stands(variable, told):
    kept, _ = told[variable]
    assert not kept
