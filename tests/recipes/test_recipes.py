"""docs/recipes/: each trains, stops, goes on with its bits, stores, reloads, and is as if it had never stopped."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from docs.pages import ROOT
from helpers import warm

RECIPES = ROOT / "docs" / "recipes"
NEEDS = {"lightning_module": "lightning", "hugging_face_trainer": "accelerate", "accelerate_loop": "accelerate"}
IN_THIS_PROCESS = """
import runpy, sys, warnings
warnings.filterwarnings("ignore")
main = runpy.run_path(sys.argv[1])["main"]
for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
    main([folder, f"--epochs={epochs}"])
"""
IN_TWO_PROCESSES = """
import os, runpy, sys, torch
import torch.multiprocessing as mp

def work(rank, folder, epochs):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    runpy.run_path(sys.argv[1])["main"]([folder, f"--epochs={epochs}"])

for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
    mp.start_processes(work, args=(folder, epochs), nprocs=2, start_method="fork")
"""


def trained(script: str, name: str, folder: Path, **environment: str) -> None:
    ended = warm.run(["-c", script, str(RECIPES / f"{name}.py")], folder, CUDA_VISIBLE_DEVICES="", **environment)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    whole, parts = ((folder / way / "model.safetensors").read_bytes() for way in ("whole", "parts"))
    assert whole == parts


@pytest.fixture
def two_processes(unused_port):
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": unused_port, "GLOO_SOCKET_IFNAME": "lo"}
    return {**world, "ACCELERATE_USE_CPU": "true"}


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_each_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.py")} == {*NEEDS, "torchrun_loop"}


@pytest.mark.long
@pytest.mark.parametrize("name", NEEDS)
def test_a_recipe_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    if find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}: pip install -e '.[recipes]'")
    trained(IN_THIS_PROCESS, name, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ["torchrun_loop", "accelerate_loop"])
def test_a_recipe_on_two_processes(name, tmp_path, two_processes):
    if name in NEEDS and find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}: pip install -e '.[recipes]'")
    trained(IN_TWO_PROCESSES, name, tmp_path, **two_processes)
