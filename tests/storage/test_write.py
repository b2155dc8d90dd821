"""Saving that fails leaves what was there."""

import builtins
import errno
import os
import random
import signal
import sys
import time

import pytest
import torch
from helpers import warm
from helpers.storage_models import network

from diffq_exp import storage
from diffq_exp.common import files
from diffq_exp.quant import LSQ, DiffQuantizer, Stored, StoredModel, UniformQuantizer


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    def full(*args):
        raise OSError(28, "No space left on device")

    path = tmp_path / "model.safetensors"
    storage.save(network(), path)
    before = path.read_bytes()
    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(OSError, match="No space"):
        storage.save(network(seed=1), path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


@pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, kind, value):
    model = network()
    quantizer = kind(model, min_size=0)
    path = tmp_path / "model.safetensors"
    storage.save(quantizer, path)
    before = path.read_bytes()
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"conv\.weight"):
        storage.save(quantizer, path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


def test_types_that_cannot_be_stored_are_refused(tmp_path):
    model = network()
    model.register_buffer("phase", torch.ones(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="complex64"):
        storage.save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("coding", ["auto", "packed"])
@pytest.mark.parametrize("level", [-1, 4, 255])
@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8])
def test_levels_that_their_bits_do_not_hold_are_refused(path, coding, level, dtype):
    """As a quantizer of one's own may give: not written as other levels."""
    levels = torch.tensor([0, 3, level]).to(dtype)
    parts = (
        "minmax",
        (3,),
        torch.float32,
        0,
        levels,
        torch.tensor([2], dtype=torch.uint8),
        torch.tensor([0.0, 1.0]),
    )
    with pytest.raises(ValueError, match=r"tensor 'w0'"):
        storage.save(StoredModel("made", {"w0": Stored(*parts)}, {}, {}), path, coding=coding)
    assert not path.exists()


# ---- in a process that is stopped in mid-save -----------------------------------------------------------------

WRITE = """
import os, resource, signal, sys
import torch
from diffq_exp import storage
from diffq_exp.common import files
from torch import nn

how, path = sys.argv[1:]
torch.manual_seed(1)
model = nn.Linear(1000, 1000)  # 4 MB
if how == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
if how == "kill in writing":
    def die(fd, sync=os.fsync):
        os.kill(os.getpid(), signal.SIGKILL)
    files.os.fsync = die
if how == "kill at any time":
    print("ready", flush=True)
    while True:
        storage.save(model, path)
        with torch.no_grad():
            model.bias += 1
try:
    storage.save(model, path)
except OSError as fault:
    print("OSError", fault.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("how", ["limit", "kill in writing"])
def test_no_room_or_killed_in_writing(path, how):
    storage.save(network(), path)
    before = path.read_bytes()
    done = warm.run(["-c", WRITE, how, str(path)], path.parent)
    assert path.read_bytes() == before
    if how == "limit":
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"OSError {errno.EFBIG}" and list(path.parent.iterdir()) == [path]
    else:
        assert done.returncode == -signal.SIGKILL
    storage.save(network(seed=1), path)  # what a killed process left is not in the way
    storage.load(path, network())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device without room")
def test_a_device_without_room(path, monkeypatch):
    """Written through to /dev/full: each write of its bytes fails."""
    storage.save(network(), path)
    before = path.read_bytes()
    monkeypatch.setattr(builtins, "open", lambda name, mode="r", real=open: real("/dev/full", mode, buffering=0))
    with pytest.raises(OSError) as caught:
        storage.save(network(seed=1), path)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC and path.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_at_any_time(path):
    """A process that saves again and again: whenever it is killed there is one whole network."""
    source, seen = random.Random(0), set()
    for _ in range(4):
        process = warm.Program(["-c", WRITE, "kill at any time", str(path)], path.parent)
        while not process.stdout or not path.exists():
            time.sleep(0.01)
        time.sleep(0.2 * source.random())
        os.kill(process.pid, signal.SIGKILL)
        assert process.end().returncode == -signal.SIGKILL
        model = torch.nn.Linear(1000, 1000)
        storage.load(path, model)
        seen.add(model.bias[0].item())
    assert len(seen) > 1
