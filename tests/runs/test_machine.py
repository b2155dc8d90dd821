"""The memory that a process keeps: page errors, counted in processes of their own."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import resource, sys, torch
from diffq_exp.runs.machine import keep_freed_memory, prepare_torch
kept = keep_freed_memory() if "run" not in sys.argv else prepare_torch(0, None, torch.device("cpu"))
def errors_of():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps(number):
    for _ in range(number):
        one, other = torch.zeros(2**24), torch.zeros(2**23)  # 64 and 32 MB
        del one, other
steps(30)  # blocks that fit are found after some
before = errors_of()
steps(10)
print(kept, errors_of() - before)
"""


TOLD = {"MALLOC_MMAP_THRESHOLD_": "1000000", "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")


def counted(*words, **variables):
    own = {
        name: value for name, value in os.environ.items() if name not in TOLD and name != "MALLOC_TRIM_THRESHOLD_"
    }
    own["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *words], env={**own, **variables}, capture_output=True, text=True, check=True
    )
    kept, errors = done.stdout.split()
    return kept == "True", int(errors)


@pytest.fixture(scope="module")
def told():
    """Where the environment says that memory is to go back."""
    return {variable: counted(**{variable: value}) for variable, value in TOLD.items()}


@pytest.mark.long
@pytest.mark.parametrize("variables", [{}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}])
def test_freed_memory_is_used_again(variables, told):
    kept, errors = counted(**variables)
    assert kept and 10 * errors < min(given_back for _, given_back in told.values())


@pytest.mark.long
def test_a_run_on_a_cpu_keeps_freed_memory():
    pages = 10 * 96 * 2**20 // resource.getpagesize()  # of ten steps
    assert 10 * counted("run")[1] < pages


@pytest.mark.long
@pytest.mark.parametrize("variable", TOLD)
def test_what_the_environment_says_stands(variable, told):
    kept, _ = told[variable]
    assert not kept
