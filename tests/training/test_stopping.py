"""Signals become a flag, and a loss that is not finite becomes a number on the device."""

import math
import os
import signal
import sys
import threading

import pytest
import torch
from helpers import warm
from helpers.run_configs import TINY
from torch.utils._python_dispatch import TorchDispatchMode

from diffq_exp.results.metrics import read_rows
from diffq_exp.results.records import status_of
from diffq_exp.training.stopping import Diverged, FiniteWatch, StopFlag, hand_on

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
CPU = torch.device("cpu")


# ---- the flag -----------------------------------------------------------------------------------------------


@pytest.fixture
def handlers():
    """The handlers of before, which have to be there again afterwards."""
    before = [signal.getsignal(number) for number in CAUGHT]
    yield before
    assert [signal.getsignal(number) for number in CAUGHT] == before


@pytest.mark.parametrize("number", CAUGHT)
def test_a_signal_sets_the_flag_and_breaks_nothing(number, handlers):
    with StopFlag() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal == number
    assert stop.signal == number


def test_a_second_ctrl_c_breaks_in(handlers):
    with pytest.raises(KeyboardInterrupt), StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_twice_does_not(handlers):
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_handlers_come_back_after_an_exception(handlers):
    with pytest.raises(ZeroDivisionError), StopFlag():
        assert signal.getsignal(signal.SIGTERM) is not handlers[1]
        raise ZeroDivisionError


def test_one_flag_inside_another(handlers):
    """As when the float32 run of a post-training quantization is done inside the other's."""
    with StopFlag() as outer:
        with StopFlag() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert (outer.signal, inner.signal) == (signal.SIGINT, signal.SIGTERM)


def test_in_another_thread_it_leaves_signals_to_their_owner(handlers):
    found = []

    def work():
        with StopFlag() as stop:
            found.append((stop.signal, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, handlers[1])]


# ---- started by a cluster --------------------------------------------------------------------------------------


@pytest.fixture
def told(handlers):
    """The signals that handlers of a starter are given, as submitit has them; the default ones come back."""
    told = []
    before = {number: signal.signal(number, lambda *args: told.append(args[0])) for number in CAUGHT[1:]}
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_starter_gets_sigterm_at_once_and_sigusr2_when_all_is_saved(told):
    with StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (told, stop.signal) == ([signal.SIGTERM], None)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert (told, stop.signal) == ([signal.SIGTERM], signal.SIGUSR2)
    hand_on(128 + signal.SIGUSR2)
    assert told == [signal.SIGTERM, signal.SIGUSR2]


@pytest.mark.parametrize("code", [0, 1, 2, signal.SIGUSR2, 128 + signal.SIGTERM, 128 + signal.SIGINT])
def test_a_run_that_ended_otherwise_is_not_handed_on(code, told):
    with StopFlag():
        os.kill(os.getpid(), signal.SIGUSR2)
    hand_on(code)
    assert told == []


def test_an_exit_of_the_starter_passes(handlers):
    before = signal.signal(signal.SIGUSR2, lambda *args: sys.exit(-1))
    try:
        with pytest.raises(SystemExit):
            hand_on(128 + signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_without_a_starter_there_is_nobody_to_hand_on_to(handlers):
    """The default action would kill the process."""
    with StopFlag() as outer, StopFlag():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert outer.signal is None
    with StopFlag() as outer:
        hand_on(128 + signal.SIGUSR2)
    hand_on(128 + signal.SIGUSR2)
    assert outer.signal is None


# What train.py does, with a starter of the process: told when the folder is free and the run says interrupted.
STARTED = """
import json, signal, sys
from pathlib import Path
starter = sys.argv.pop(1)

def requeue(number, frame):
    from diffq_exp.results.run_files import is_locked
    (folder,) = Path("outputs").iterdir()
    status = json.loads((folder / "result.json").read_text())["status"]
    print("requeue", status, is_locked(folder), flush=True)
    sys.exit(77)

def bypass(number, frame):
    print("bypassed", flush=True)

if starter == "submitit":
    signal.signal(signal.SIGUSR2, requeue)
    signal.signal(signal.SIGTERM, bypass)
import diffq_exp.train
from diffq_exp.training import trainer
save = trainer.save

def save_and_signal(saved):
    save(saved)
    if saved.epoch == 1 and saved.batch == 0:
        signal.raise_signal(signal.SIGTERM) if starter == "submitit" else None
        signal.raise_signal(signal.SIGUSR2)

trainer.save = save_and_signal
sys.exit(diffq_exp.train.main())
"""


@pytest.mark.parametrize(
    ("starter", "code", "said"),
    [("submitit", 77, ["bypassed", "requeue interrupted False"]), ("none", 128 + signal.SIGUSR2, [])],
)
def test_a_whole_run_saves_and_is_free_before_it_is_handed_on(starter, code, said, tmp_path):
    done = warm.run(["-c", STARTED, starter, *TINY, "epochs=3"], tmp_path)
    assert done.returncode == code, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith(("bypassed", "requeue"))] == said
    (folder,) = (tmp_path / "outputs").iterdir()
    assert status_of(folder) == "interrupted" and len(read_rows(folder / "metrics.jsonl")) == 1
    assert (folder / "checkpoint.pt").is_file()


# ---- the watch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_step_that_is_not_finite_is_remembered(bad):
    watch = FiniteWatch(CPU)
    watch.check(1)
    for step, loss in enumerate([1.0, 1e38, bad, 1.0, math.nan, 2.0], 1):
        watch.see(torch.tensor(loss), step)
    with pytest.raises(Diverged) as caught:
        watch.check(7)
    assert (caught.value.epoch, caught.value.step) == (7, 3)
    assert "epoch 7" in str(caught.value) and "step 3" in str(caught.value)


def test_finite_losses_are_nothing_to_tell():
    watch = FiniteWatch(CPU)
    for step, loss in enumerate([0.0, -1.0, 3e38, 1e-45], 1):
        watch.see(torch.tensor(loss, requires_grad=True), step)
    watch.check(1)


def test_the_loss_of_several_batches_of_a_step_counts_once():
    watch = FiniteWatch(CPU)
    for step in (1, 1, 2, 2):
        watch.see(torch.tensor(math.nan if step == 2 else 0.0), step)
    with pytest.raises(Diverged, match="step 2"):
        watch.check(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_of_any_type(dtype):
    watch = FiniteWatch(CPU)
    watch.see(torch.tensor(1.0, dtype=dtype), 1)
    watch.check(1)
    watch.see(torch.tensor(math.inf, dtype=dtype), 2)
    with pytest.raises(Diverged, match="step 2"):
        watch.check(1)


class NoReading(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "a value was read from the device"
        return func(*args, **(kwargs or {}))


def test_seeing_reads_nothing_checking_does():
    watch = FiniteWatch(CPU)
    with NoReading():
        watch.see(torch.tensor(math.nan), 1)
        with pytest.raises(AssertionError, match="was read"):
            watch.check(1)
