"""State dicts out of files that somebody else wrote, read without running anything of them."""

import argparse
import json
import os
import pickle
import warnings
from collections import defaultdict, deque
from functools import partial

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffq_exp.models import digits_cnn
from diffq_exp.runs.loading import load_weights
from diffq_exp.runs.state_files import is_stored_here, read_states

ROOM = {"x": torch.arange(3.0), "y": torch.ones(2, 2)}


class Unknown:
    """Of a package that the reader does not have, say."""

    def __init__(self):
        self.made = True


class Options(dict):
    """As configurations of many packages are."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.frozen = True


class Rows(list):
    pass


class Hostile:
    def __reduce__(self):
        return os.system, ("echo a stranger's code ran",)


def same(state):
    assert state.keys() == ROOM.keys() and all(torch.equal(state[name], ROOM[name]) for name in ROOM)


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.ckpt", "3f786850e387550fdab836ed7e6dc881de23001b"])
@pytest.mark.parametrize("old", [False, True])
def test_files_of_torch_save(name, old, tmp_path):
    torch.save(ROOM, tmp_path / name, _use_new_zipfile_serialization=not old)
    same(read_states(tmp_path / name)[""])


@pytest.mark.parametrize("name", ["a.safetensors", "a_blob_of_a_cache"])
def test_safetensors(name, tmp_path):
    save_file(ROOM, tmp_path / name)
    same(read_states(tmp_path / name)[""])
    assert not is_stored_here(tmp_path / name) and not is_stored_here(tmp_path)


@pytest.mark.parametrize("places", [("state_dict",), ("model",), ("trainer", "weights")])
def test_a_state_inside_of_a_checkpoint(places, tmp_path):
    value = ROOM
    for place in reversed(places):
        value = {place: value, "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1}]}}
    torch.save(value, tmp_path / "a.ckpt")
    found = read_states(tmp_path / "a.ckpt")
    same(found[".".join(places)])


def test_the_usual_state_comes_first(tmp_path):
    torch.save({"state_dict_ema": ROOM, "epoch": 3, "model": ROOM}, tmp_path / "a.pt")
    assert list(read_states(tmp_path / "a.pt")) == ["model", "state_dict_ema"]


def test_objects_of_other_kinds_are_not_made(tmp_path):
    others = [argparse.Namespace(width=3), partial(torch.optim.Adam, lr=1), Unknown(), tmp_path, {1}]
    others += [Options(a=Rows([1, Options(b=2)])), defaultdict(list, a=[1]), deque([1]), Rows([1])]
    torch.save({"state_dict": ROOM, "hyper_parameters": {str(each): each for each in others}}, tmp_path / "a.ckpt")
    same(read_states(tmp_path / "a.ckpt")["state_dict"])


@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_file_does_not_run(old, tmp_path, capfd):
    state = {"state_dict": ROOM, "other": Hostile()}
    torch.save(state, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match=r"it holds \w+\.system, which is not run"):
        read_states(tmp_path / "a.ckpt")
    assert capfd.readouterr().out == ""


def test_parts(tmp_path):
    torch.save({"x": ROOM["x"]}, tmp_path / "1.bin")
    torch.save({"y": ROOM["y"]}, tmp_path / "2.bin")
    index = {"weight_map": {"x": "1.bin", "y": "2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same(read_states(tmp_path)[""])


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"PK\x03\x04", torch, nn.Linear(2, 2), [1], {"a": 1}],
    ids=lambda each: type(each).__name__,
)
def test_what_holds_no_state_is_one_line(content, tmp_path, capfd):
    path = tmp_path / "a.pt"
    if content is torch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is old
            torch.jit.script(nn.Linear(2, 2)).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"a\.pt: no") as caught:
        read_states(path)
    assert "\n" not in str(caught.value) and capfd.readouterr().out == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [None, 4])
def test_a_pickle_that_torch_does_not_read_is_a_line_of_ours(protocol, tmp_path):
    """torch advises to read it with its objects, and warns."""
    if protocol is None:
        (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": 1}))
    else:
        torch.save(ROOM, tmp_path / "a.pt", pickle_protocol=protocol)
    with pytest.raises(ValueError, match=r"it is damaged, or not written by a plain torch\.save") as caught:
        read_states(tmp_path / "a.pt")
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_sparse_tensors_are_read_without_a_warning(tmp_path):
    torch.save({"x": torch.eye(3).to_sparse()}, tmp_path / "a.pt")
    assert read_states(tmp_path / "a.pt")[""]["x"].is_sparse


def test_parts_that_contradict_each_other_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "1.bin", "y": "2.bin"}}')
    torch.save(ROOM, tmp_path / "1.bin")
    torch.save(ROOM, tmp_path / "2.bin")
    same(read_states(tmp_path)[""])
    torch.save({**ROOM, "x": ROOM["x"] + 1}, tmp_path / "2.bin")
    with pytest.raises(ValueError, match=r"2\.bin: its 'x' has other values than that of another part"):
        read_states(tmp_path)


def test_a_damaged_safetensors_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x10" + b"\0" * 30)
    with pytest.raises(ValueError, match=r"a\.safetensors: not a readable"):
        read_states(tmp_path / "a.safetensors")


def fresh(classes=4):
    return digits_cnn(num_classes=classes, in_channels=1, image_size=8)


def test_weights_are_loaded_and_what_is_left_is_told(tmp_path, caplog):
    trained = fresh(10)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}},
        tmp_path / "a.pth",
    )
    model = fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level("INFO", "diffq_exp"):
        load_weights(model, tmp_path / "a.pth")
    same_shape = [name for name, value in trained.state_dict().items() if value.shape == before[name].shape]
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name] if name in same_shape else before[name]), name
    assert len(same_shape) == len(before) - 2
    assert "'module.' left out" in caplog.text and "has shape (10, " in caplog.text
    with pytest.raises(ValueError, match="has shape"):
        load_weights(model, tmp_path / "a.pth", strict=True)


def test_two_tensors_for_one_are_refused_by_name(tmp_path):
    state = fresh().state_dict()
    torch.save(state | {f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "a.pth")
    load_weights(fresh(), tmp_path / "a.pth", strict=True)  # equal ones are one
    name = next(iter(state))
    torch.save(state | {f"_orig_mod.{name}": state[name] + 1}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=rf"'{name}' and '_orig_mod\.{name}' are one tensor with different values"):
        load_weights(fresh(), tmp_path / "a.pth")


def test_the_file_of_another_network_is_refused(tmp_path):
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: only 0 of \d+ tensors are taken"):
        load_weights(fresh(), tmp_path / "a.pth")
