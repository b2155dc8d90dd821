"""torch.optim without torch._dynamo: nothing else is different, and the compiler is there for whoever asks."""

import os
import subprocess
import sys
from pathlib import Path

BEGIN = """
import sys
import torch
from torch import nn, optim
from diffq_exp.training.eager import eager

def loaded():
    return "torch._dynamo" in sys.modules or "_dynamo" in vars(torch)

def net():
    torch.manual_seed(0)
    return nn.Linear(3, 2)

def trained(make, context):
    model = net()
    with context(make):
        optimizer = make(model.parameters())
    for _ in range(3):
        model(torch.ones(4, 3)).square().sum().backward()
        with context(optimizer):
            optimizer.step()
            optimizer.zero_grad()
            optimizer.load_state_dict(optimizer.state_dict())
    return [param.detach() for param in model.parameters()]
"""


def fresh(code: str) -> str:
    """What it prints in a process where nothing is imported yet."""
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", BEGIN + code], env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchs_optimizers_train_alike_without_the_compiler():
    code = """
from contextlib import nullcontext
from functools import partial
makes = [optim.SGD, partial(optim.SGD, momentum=0.9, nesterov=True), optim.Adam, partial(optim.Adam, fused=True),
         partial(optim.AdamW, foreach=True), optim.NAdam, optim.RAdam, optim.RMSprop, optim.Adagrad, optim.Adadelta,
         optim.Adamax, optim.Rprop, optim.ASGD]
without = [trained(make, eager) for make in makes]
assert not loaded()
within = [trained(make, lambda one: nullcontext()) for make in makes]
assert loaded()
print(all(torch.equal(a, b) for one, other in zip(without, within) for a, b in zip(one, other)))
"""
    assert fresh(code) == "True"


def test_a_compiled_step_after_it_is_compiled_as_ever():
    code = """
trained(optim.SGD, eager)
assert not loaded()
model = net()
optimizer = optim.SGD(model.parameters(), lr=0.1)
wrapped = [vars(optim.Optimizer)[name].__wrapped__ for name in ("zero_grad", "state_dict", "add_param_group")]
assert [hasattr(one, "__dynamo_disable") for one in wrapped] == [False, False, True]  # by the constructor above
step = torch.compile(lambda: (model(torch.ones(1, 3)).sum().backward(), optimizer.step(), optimizer.zero_grad()),
                     backend="eager")
step()
assert all(param.grad is None for param in model.parameters())
print(sys.modules["torch._dynamo"] is torch._dynamo, torch._dynamo.disable.__module__)
"""
    assert fresh(code) == "True torch._dynamo.decorators"


def test_the_stand_in_gives_way_to_faults_and_to_whoever_asks_for_more():
    code = """
for fault in (ZeroDivisionError, KeyboardInterrupt, SystemExit):
    try:
        with eager(optim.SGD):
            assert loaded()
            raise fault
    except fault:
        assert not loaded()
with eager(optim.SGD):
    torch._dynamo.reset()
    real = torch._dynamo
print(real.__file__.endswith("__init__.py"), sys.modules["torch._dynamo"] is torch._dynamo is real)
"""
    assert fresh(code) == "True True"


def test_the_compiler_is_left_to_those_who_have_it_and_to_optimizers_of_others():
    code = """
class Own(optim.SGD):
    pass

for kind in (Own, lambda params: optim.SGD(params)):
    before = sys.modules.get("torch._dynamo")
    with eager(kind):
        assert sys.modules.get("torch._dynamo") is before
import torch._dynamo as compiler
with eager(optim.SGD):
    print(sys.modules["torch._dynamo"] is torch._dynamo is compiler)
"""
    assert fresh(code) == "True"
