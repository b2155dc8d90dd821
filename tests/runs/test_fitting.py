"""Tensors of files by other names, of other shapes, too few and too many."""

import pytest
import torch
from torch import nn

from diffq_exp.runs.fitting import LEAST, equal, fit


def net(classes=4):
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, classes))


def renamed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "a.b.net."])
def test_prefixes_are_left_out(prefix):
    state = net().state_dict()
    found = fit(net().state_dict(), renamed(prefix, state))
    assert found.taken == {name: prefix + name for name in state} and found.differences() == []
    assert found.share == 1 and (found.left_out in found.summary()) and found.put_before == ""


def test_a_prefix_of_the_network_is_put_before():
    wanted = renamed("network.", net().state_dict())
    found = fit(wanted, renamed("module.", net().state_dict()))
    assert found.taken == {f"network.{name}": f"module.{name}" for name in net().state_dict()}
    assert "'network.' put before" in found.summary()


def test_a_layer_that_was_compiled_by_itself():
    state = {name.replace("0.", "0._orig_mod.", 1): value for name, value in net().state_dict().items()}
    assert fit(net().state_dict(), state).share == 1


def test_one_network_of_several():
    """Of a module with a teacher of the same names, the one whose shapes fit."""
    state = renamed("teacher.", net(9).state_dict()) | renamed("student.", net().state_dict())
    found = fit(net().state_dict(), state)
    assert found.left_out == "student." and len(found.taken) == len(net().state_dict())
    assert "'teacher.0.weight'" in found.differences()[0] and "more" in found.differences()[0]


def test_a_new_head():
    found = fit(net(4).state_dict(), net(10).state_dict())
    assert set(found.other) == {"3.weight", "3.bias"} and found.lacking == [] and found.unused == []
    assert found.differences() == [
        "'3.weight' has shape (10, 3), the network has (4, 3); '3.bias' has shape (10,), the network has (4,)"
    ]
    assert found.share > LEAST


def test_a_lost_head_and_another_one():
    state = {name: value for name, value in net().state_dict().items() if not name.startswith("3.")}
    found = fit(net().state_dict(), {**state, "head.weight": torch.ones(2)})
    assert found.lacking == ["3.weight", "3.bias"] and found.unused == ["head.weight"]
    assert found.differences() == [
        "it lacks '3.weight', '3.bias', which the network has", "the network has no 'head.weight'"
    ]  # fmt: skip


def test_what_old_files_lack_and_what_quantizers_add_is_no_difference():
    state = {name: value for name, value in net().state_dict().items() if "num_batches" not in name}
    found = fit(net().state_dict(), state | {"0.weight_diffq": torch.ones(2), "3.weight_lsq_more": torch.ones(1)})
    assert found.differences() == [] and found.share == 1


def test_a_tied_tensor_is_stored_once():
    model = nn.ModuleDict({"first": nn.Linear(2, 2, bias=False), "last": nn.Linear(2, 2, bias=False)})
    model["last"].weight = model["first"].weight
    assert fit(model.state_dict(), {"first.weight": torch.ones(2, 2)}).differences() == []


def test_integers_in_the_place_of_weights():
    found = fit({"x": torch.ones(2)}, {"x": torch.ones(2, dtype=torch.int8)})
    assert found.other == {"x": "is torch.int8, the network has torch.float32"} and found.taken == {}
    assert fit({"x": torch.ones(2)}, {"x": torch.ones(2, dtype=torch.bfloat16)}).share == 1


@pytest.mark.parametrize(
    ("given", "how"),
    [
        (torch.eye(2).to_sparse(), "is sparse_coo"),
        (torch.eye(2).to_mkldnn(), "is _mkldnn"),
        (torch.ones(2, 2, device="meta"), "is without values (device meta)"),
    ],
)
def test_tensors_of_other_forms_are_named(given, how):
    found = fit({"a.x": torch.ones(2, 2)}, {"x": given})
    assert found.other == {"a.x": f"{how}, in the network it is a plain tensor"} and found.taken == {}
    both = {"x": given, "_orig_mod.x": torch.ones(2, 2)}
    assert fit({"x": torch.ones(2, 2)}, both).twice == [("x", "_orig_mod.x")]


def test_a_nested_tensor_is_named():
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    assert fit({"x": torch.ones(2, 2)}, {"x": ragged}).other["x"].startswith("is nested")


def test_two_names_of_one_tensor():
    state = net().state_dict()
    found = fit(state, state | renamed("_orig_mod.", state))
    assert found.differences() == [] and found.twice == [] and found.share == 1
    found = fit(state, state | {"_orig_mod.0.weight": state["0.weight"] + 1, "other.x": state["0.bias"]})
    assert found.twice == [("0.weight", "_orig_mod.0.weight")] and found.unused == ["other.x"]
    both = {"a.x": torch.ones(3), "a._orig_mod.x": torch.zeros(3)}
    assert fit(state, state | both).twice == []  # of no use to the network


def test_another_network():
    assert fit(net().state_dict(), nn.Linear(5, 5).state_dict()).share == 0
    assert fit(net().state_dict(), {}).share == 0 and fit({}, {"x": torch.ones(1)}).unused == ["x"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1, torch.nan], torch.tensor([1, torch.nan]), True),
        ([1, 2.5], torch.tensor([1, 2.5], dtype=torch.float16), True),
        ([1, 2.5001], torch.tensor([1, 2.5], dtype=torch.float16), False),
        ([1, 2], torch.tensor([[1], [2]]), False),
        ([1.0, 2], torch.tensor([1, 2], dtype=torch.float64), True),
        ([1, 2], torch.tensor([1.0, 2.0]).to_sparse(), False),
        ([1, torch.inf], torch.tensor([1, torch.inf]), True),
        ([1, 2.0], torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn), True),
        ([16777217], torch.tensor([16777216.0]), False),
    ],
)
def test_equal_values(one, other, same):
    assert equal(torch.tensor(one), other) == equal(other, torch.tensor(one)) == same
