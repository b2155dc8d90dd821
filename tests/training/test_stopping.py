"""Signals become a flag, and a loss that is not finite becomes a number on the device."""

import math
import os
import signal
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffq_exp.training.stopping import Diverged, FiniteWatch, StopFlag

CPU = torch.device("cpu")


# ---- the flag -----------------------------------------------------------------------------------------------


@pytest.fixture
def handlers():
    """The handlers of before, which have to be there again afterwards."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
