"""What classes and functions take is read from their source, and is what Python says of them."""

import inspect
import subprocess
import sys

import pytest
from helpers.command_lines import errors_of, only_error
from hydra.utils import get_object

from diffq_exp.command.choices import shipped
from diffq_exp.command.parameters import parameters
from diffq_exp.command.schema import NODES, conf_dir

TARGETS = {
    target
    for group in NODES
    for file in (conf_dir() / group).glob("*.yaml")
    if (target := shipped(group, file.stem).get("_target_"))
}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_our_targets(target):
    taken = parameters(target)
    if taken is None:
        assert target.startswith("diffq_exp.quant.size.")  # whose base might have arguments
        return
    named = inspect.signature(get_object(target)).parameters.values()
    assert {one.name for one in named if one.kind is not one.VAR_KEYWORD} <= taken
    assert any(one.kind is one.VAR_KEYWORD for one in named) or len(named) == len(taken)


OWN = """
from dataclasses import dataclass
from functools import cache
from typing_extensions import Unpack
class Base:
    def __init__(self, a): ...
class Derived(Base): ...
@dataclass
class Data:
    b: int
class Empty: ...
def anything(c, **rest): ...
def more(c, **rest: Unpack[Data]): ...
@cache
def wrapped(d): ...
"""


def test_what_the_source_tells(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    told = {name: parameters(f"own_net.{name}") for name in ("Base", "Data", "Empty", "more")}
    assert told == {"Base": {"a"}, "Data": {"b"}, "Empty": set(), "more": {"c", "b"}}
    for name in ("Derived", "anything", "wrapped", "nope"):
        assert parameters(f"own_net.{name}") is None
    assert parameters("nosuch.package.Net") is None


def test_a_key_that_a_class_does_not_take_is_an_error():
    assert only_error("+quantizer.foo=1").startswith(
        "quantizer.foo: diffq_exp.quant.DiffQuantizer does not take it"
    )
    error = only_error("-m", "seed=8,9", "+dataset.nope=3")
    assert error.startswith("dataset.nope: ") and error.endswith("it takes batch_size, crop, device, flip, "
                                                                  "num_workers, seed, val_fraction")  # fmt: skip
    assert errors_of("+optimizer.betas=[0.5,0.9]", "++dataset.flip=true", "+quantizer.suffix=_bits") == []
    assert errors_of("quantizer=rate_biases") == []  # whose file says less than that of rate
    assert errors_of("model._target_=helpers.run_pieces.NoNet", "+model.anything=3") == []  # the run says it


def test_nothing_is_imported():
    code = "import sys, diffq_exp.command.parameters as p; p.parameters('torch.optim.Adam'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
