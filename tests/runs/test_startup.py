"""What a run imports, and how it starts."""

import gc
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import warm

from diffq_exp.runs.startup import uncollected

RUN = """
import gc, sys
from diffq_exp.train import main
code = main()
print("imported:", *sys.modules)
print("ended:", code, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
UNNEEDED = {"sklearn", "matplotlib", "plotly"}
UNNEEDED |= {"torchvision"}


def test_the_modules_of_a_run_import_nothing_heavy(tmp_path):
    done = warm.run(["-c", "import sys; print(*sys.modules)"], tmp_path)
    imported = set(done.stdout.split())
    assert "diffq_exp.runs.run" in imported and not UNNEEDED & imported


@pytest.mark.long
def test_a_digits_run_imports_nothing_heavy_that_it_does_not_need(tmp_path):
    words = ["epochs=1", "device=cpu", "tracking.mode=offline"]
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", RUN, *words]
    done = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *_, imported, ended = done.stdout.splitlines()
    assert {"torch", "wandb", "hydra"} <= set(imported.split())
    assert not UNNEEDED & set(imported.split())
    assert ended == "ended: 0 True True"


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()


@pytest.mark.parametrize("error", [None, ImportError])
def test_the_collector_rests_while_a_module_is_imported(unfrozen, error):
    with pytest.raises(error) if error else nullcontext(), uncollected("no.such.module"):
        assert not gc.isenabled()
        if error:
            raise error
    assert gc.isenabled() and gc.get_freeze_count() > 0


def test_the_collector_is_left_alone_where_the_module_is_there_or_somebody_else_stopped_it(unfrozen):
    gc.unfreeze()
    with uncollected("pytest"):
        assert gc.isenabled()
    gc.disable()
    try:
        with uncollected("no.such.module"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == 0
