"""Targets that are not there are said before anything is written, and nothing is imported to know it."""

import importlib
import sys
from pathlib import Path

import pytest

from diffq_exp import train
from diffq_exp.command.check import check
from diffq_exp.command.targets import target_error

MINE = """
import torch.nn as nn
from collections import OrderedDict as Ordered
raise RuntimeError("imported")

class Net(nn.Module):
    def forward(self, x):
        inside = x

if True:
    FAST = Slow = 3
for turn in []: pass
with open("x") as (handle, *others): pass
async def later(): pass
"""


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "dynamic", "pack", "plain")]:
        monkeypatch.delitem(sys.modules, name)
    files = {
        "mine.py": MINE,
        "dynamic.py": "from mine import *\n",
        "pack/__init__.py": "from .nets import Net\ndef nets_of(): ...\n",
        "pack/nets.py": "class Net: ...\nclass Other: ...\n",
        "plain/deep/nets.py": "class Net: ...\n",  # without __init__.py
        "broken.py": "class Net:\n  def (\n",
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    importlib.invalidate_caches()


THERE = [
    *(f"mine.{name}" for name in ("Net", "nn", "Ordered", "FAST", "Slow", "turn", "handle", "others", "later")),
    "mine.Net.made", "dynamic.Anything", "pack.Net", "pack.nets.Other", "pack.nets_of", "plain.deep.nets.Net",
    "torch.optim.RAdam", "torch.nn.Linear", "diffq_exp.models.digits_cnn", "math.sqrt", "collections.Counter",
    "hydra.utils.get_object",
]  # fmt: skip


@pytest.mark.parametrize("target", THERE)
def test_a_target_that_is_there(target):
    assert target_error(target) is None and "mine" not in sys.modules


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("mine.Nte", "mine has no 'Nte'; the nearest is Net"),
        ("mine.inside", "mine has no 'inside'"),
        ("pack.nets.Othr", "pack.nets has no 'Othr'; the nearest is Other"),
        ("pack.nest.Net", "pack has no 'nest'; the nearest is nets"),
        ("pack.nets", "pack.nets is a module; package.Class is allowed"),
        ("plain.deep.nets.Nat", "plain.deep.nets has no 'Nat'; the nearest is Net"),
        ("nosuchpackage.Net", "no package or module 'nosuchpackage' is found"),
        ("torch.optim.Adamm", "torch.optim has no 'Adamm'; the nearest is Adam"),
        ("mine..Net", "no package or module 'mine' is found"),
    ],
)
def test_a_target_that_is_not_there(target, error):
    assert str(target_error(target)).startswith(error) and "mine" not in sys.modules


@pytest.mark.parametrize(
    "group", ["model", "dataset", "quantizer", "size", "optimizer", "scheduler", "task", "tracking"]
)
def test_a_mistyped_class_is_one_line_and_leaves_nothing(group, capsys):
    before = set(Path().iterdir())
    assert train.main([f"{group}._target_=mine.Nte"]) == 2
    assert capsys.readouterr().err == f"error: {group}._target_=mine.Nte: mine has no 'Nte'; the nearest is Net\n"
    assert set(Path().iterdir()) == before


def test_a_noise_and_each_job_of_a_sweep():
    assert "noise._target_=mine.Nte: mine has no 'Nte'" in check(["noise={_target_:mine.Nte}"]).errors[0]
    assert len(check(["-m", "model._target_=mine.Nte,mine.Net,mine.Nut", "seed=0,1"]).errors) == 2


def test_a_module_with_a_mistake_in_it():
    (error,) = check(["model._target_=broken.Net"]).errors
    assert "broken.py, line 2: " in error and "\n" not in error


def test_a_file_of_the_users_own(tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "ours.yaml").write_text("_target_: mine.Nte\n")
    (error,) = check(["--config-dir", "own", "model=ours"]).errors
    assert error.startswith("model._target_=mine.Nte: mine has no 'Nte'")
