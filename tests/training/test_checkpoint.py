"""Checkpoints: every generator goes round, an old file outlives a failed write, nothing is unpickled."""

import errno
import io
import os
import random

import numpy as np
import pytest
import torch

from diffq_exp.common import files
from diffq_exp.training import checkpoint
from diffq_exp.training.checkpoint import (
    LATER_PARTS,
    PARTS,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def whole(**parts):
    """A state with every part that a checkpoint has."""
    return {name: kind() for name, kind in PARTS.items()} | parts


def draws():
    values = [random.random(), random.gauss(0, 1), random.getrandbits(40)]
    values += [float(np.random.standard_normal()), int(np.random.randint(1 << 30)), float(np.random.random())]
    return values + torch.randn(5).tolist() + torch.randint(100, (5,)).tolist() + torch.randperm(9).tolist()


@pytest.mark.parametrize("odd", [0, 1])
def test_every_generator_goes_on_where_it_was(odd, tmp_path):
    """odd: with half of a pair of Gaussian numbers still kept by Python and numpy."""
    random.seed(3), np.random.seed(4), torch.manual_seed(5)
    for _ in range(odd):
        random.gauss(0, 1), np.random.standard_normal()
    save_checkpoint(tmp_path / "c.pt", whole(rng=rng_state()))
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    assert draws() != expected
    set_rng_state(load_checkpoint(tmp_path / "c.pt")["rng"])
    assert draws() == expected


class Gpus:
    """Generators of GPUs as torch.cuda has them: a device without a number is the current one."""

    def __init__(self, count, current):
        self.states, self.current = [torch.tensor([number]) for number in range(count)], current

    def at(self, device):
        return self.current if device.index is None else device.index

    def get(self, device):
        return self.states[self.at(device)]

    def set(self, state, device):
        self.states[self.at(device)] = state


def with_gpus(monkeypatch, count, current=0):
    gpus = Gpus(count, current)
    for name, function in (("get_rng_state", gpus.get), ("set_rng_state", gpus.set)):
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpus.current)
    return gpus


@pytest.mark.parametrize("name", ["cuda", "cuda:2"])
def test_of_gpus_the_one_in_use_counts(name, monkeypatch):
    """Wherever the run goes on: on another GPU, on a machine with fewer, or without any."""
    with_gpus(monkeypatch, 3, current=2)
    state = rng_state(torch.device(name))
    assert [int(each) for each in state["cuda"]] == [2]
    gpus = with_gpus(monkeypatch, 2, current=1)
    set_rng_state(state, torch.device("cuda"))
    assert [int(each) for each in gpus.states] == [0, 2]
    set_rng_state(state)


@pytest.mark.parametrize(("current", "taken"), [(0, 10), (1, 11), (3, 12)])
def test_an_older_checkpoint_has_those_of_all_gpus(current, taken, monkeypatch):
    gpus = with_gpus(monkeypatch, 4, current)
    set_rng_state(
        {**rng_state(), "cuda": [torch.tensor([10 + number]) for number in range(3)]}, torch.device("cuda")
    )
    assert int(gpus.states[current]) == taken


def test_no_file_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path / "c.pt") is None


def test_goes_round_bit_by_bit(tmp_path):
    state = whole(a=torch.tensor([1.0, -0.0, float("nan")]), b=[1, 0.1, None, "x", {"c": torch.arange(3)}])
    save_checkpoint(tmp_path / "c.pt", state)
    got = load_checkpoint(tmp_path / "c.pt")
    assert got["a"].view(torch.int32).tolist() == state["a"].view(torch.int32).tolist()
    assert got["b"][:4] == state["b"][:4] and torch.equal(got["b"][4]["c"], torch.arange(3))
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_one_and_nothing_else(fault, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c.pt", whole(place=[1]))

    def cut_short(state, file):
        file.write(b"half")
        raise fault

    monkeypatch.setattr(torch, "save", cut_short)
    with pytest.raises(type(fault)):
        save_checkpoint(tmp_path / "c.pt", whole(place=[2]))
    assert load_checkpoint(tmp_path / "c.pt") == whole(place=[1])
    assert os.listdir(tmp_path) == ["c.pt"]


def told(path):
    with pytest.raises(ValueError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def good(tmp_path):
    save_checkpoint(tmp_path / "c.pt", whole(model={"w": torch.randn(40)}, rng=rng_state(), place=[1, 2, 0.5]))
    return tmp_path / "c.pt"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_one_cut_short_is_named(good, share):
    data = good.read_bytes()
    good.write_bytes(data[: int(share * len(data))])
    told(good)


@pytest.mark.parametrize("content", [b"\0" * 100, b"no checkpoint\n", b"\x80\x02}", b"PK\x03\x04" + b"x" * 50])
def test_one_that_is_something_else_is_named(good, content):
    good.write_bytes(content)
    told(good)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_ones_are_named_or_readable(tmp_path):
    """A byte changed: a ValueError, or a state (torch keeps no checksum of tensors); nothing else."""
    path = tmp_path / "c.pt"
    save_checkpoint(path, whole(model={"w": torch.arange(9.0)}, rng={"a": [1, 2.5, None]}))
    data = path.read_bytes()
    refused, others = 0, {}
    for place in range(0, len(data), 7):
        bad = bytearray(data)
        bad[place] ^= (0x01, 0x80, 0xFF)[place % 3]
        path.write_bytes(bad)
        try:
            load_checkpoint(path)
        except ValueError as fault:
            refused += 1
            assert str(path) in str(fault)
        except Exception as fault:
            others[type(fault).__name__] = place
    assert refused > 20 and others == {}


@pytest.mark.parametrize("part", PARTS)
def test_one_that_lacks_a_part_is_named(part, tmp_path):
    state = whole()
    del state[part]
    save_checkpoint(tmp_path / "c.pt", state)
    with pytest.raises(ValueError, match=part):
        load_checkpoint(tmp_path / "c.pt")
    told(tmp_path / "c.pt")


@pytest.mark.parametrize("part", [*PARTS, *LATER_PARTS])
@pytest.mark.parametrize("wrong", [3, [[1]], {"a": [1]}, "text", torch.zeros(2)])
def test_a_part_of_another_kind_is_named(part, wrong, tmp_path):
    if isinstance(wrong, {**PARTS, **LATER_PARTS}[part]) and part != "model":
        return
    save_checkpoint(tmp_path / "c.pt", whole(**{part: wrong}))
    with pytest.raises(ValueError, match=rf"damaged checkpoint: {part}"):
        load_checkpoint(tmp_path / "c.pt")
    told(tmp_path / "c.pt")


@pytest.mark.parametrize("name", ["_extra_state", "a.b._extra_state"])
def test_what_a_module_adds_to_its_state_may_be_plain(name, tmp_path):
    save_checkpoint(tmp_path / "c.pt", whole(model={name: {"seen": 3}, "w": torch.ones(1)}))
    assert load_checkpoint(tmp_path / "c.pt")["model"][name] == {"seen": 3}


class Evil:
    """Its pickle makes a folder when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(whole(model=Evil()), tmp_path / "c.pt")
    told(tmp_path / "c.pt")
    assert not (tmp_path / "opened").exists()
    with pytest.raises(ValueError, match=r"\(it is damaged, or another kind of file\)$"):  # not how to trust it
        load_checkpoint(tmp_path / "c.pt")


def test_a_file_of_another_kind_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "c.pt")
    told(tmp_path / "c.pt")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOSPC, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("when", ["at the beginning", "while it is written"])
def test_what_the_system_says_is_told(number, when, tmp_path, monkeypatch):
    """Too many open files are no full disk, and no damage to the file."""
    save_checkpoint(tmp_path / "c.pt", whole())

    class Failing(io.BytesIO):
        def write(self, data):
            raise OSError(number, os.strerror(number))

        def fileno(self):
            return 0

    def fail(path, mode, *more):
        if when == "at the beginning":
            raise OSError(number, os.strerror(number), str(path))
        return Failing()

    monkeypatch.setattr(files, "open", fail, raising=False)
    with pytest.raises(OSError) as caught:
        save_checkpoint(tmp_path / "c.pt", whole(model=torch.zeros(10_000)))
    assert str(caught.value) == f"{tmp_path / 'c.pt'}: cannot be written ({os.strerror(number)})"
    if when == "at the beginning":
        monkeypatch.setattr(checkpoint, "open", fail, raising=False)
        with pytest.raises(OSError, match=os.strerror(number)):
            load_checkpoint(tmp_path / "c.pt")
