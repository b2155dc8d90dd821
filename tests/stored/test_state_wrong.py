"""A state that does not fit the model is refused by name, and the model stays as it was."""

import copy
import re

import pytest
import torch
from helpers.quant_models import Net, assert_same, scramble, set_bits, snapshot
from helpers.quant_reference import Setting
from torch import nn

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer, restore_quantized_state

FLOATS = {"min_size": 4 * 20 / 2**20}


class Longer(Net):
    def __init__(self):
        super().__init__()
        self.tail = nn.Linear(5, 5)


class NoNorm(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)


def attach(kind, model):
    keywords = {"group_size": 4, "min_bits": 1} if kind is DiffQuantizer else {}
    quantizer = kind(model, **FLOATS, **keywords)
    if kind is DiffQuantizer:
        set_bits(model, Setting(group_size=4, min_bits=1))
    return quantizer


def assert_refused(kind, state, name, build=Net):
    """By the function and by the method; both models untouched."""
    plain, other = build(), build()
    quantizer = attach(kind, other)
    for model, restore in ((plain, restore_quantized_state), (other, None)):
        before = snapshot(model)
        with pytest.raises(ValueError) as caught:
            if restore is None:
                quantizer.restore_quantized_state(state)
            else:
                restore(model, state)
        assert re.search(name, str(caught.value)), str(caught.value)
        assert_same(snapshot(model), before)


kinds = pytest.mark.parametrize("kind", [DiffQuantizer, UniformQuantizer, LSQ])
packings = pytest.mark.parametrize("packed", [True, False])


@kinds
@packings
def test_a_missing_tensor(kind, packed):
    state = attach(kind, scramble(Net())).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"tail\.(weight|bias)", Longer)


@kinds
@packings
def test_an_extra_tensor(kind, packed):
    state = attach(kind, scramble(Longer())).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"tail\.(weight|bias)")


@kinds
@packings
def test_a_missing_and_an_extra_buffer(kind, packed):
    state = attach(kind, scramble(NoNorm())).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"norm\.(running|num)")
    state = attach(kind, scramble(Net())).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"norm\.(running|num)", NoNorm)


@kinds
@packings
def test_a_wrong_shape(kind, packed):
    state = attach(kind, scramble(Net(classes=7))).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"head\.(weight|bias)")


@kinds
@packings
def test_the_same_entries_in_another_shape(kind, packed):
    class Turned(Net):
        def __init__(self):
            super().__init__()
            self.head.weight = nn.Parameter(torch.randn(6, 5))

    state = attach(kind, scramble(Turned())).get_quantized_state(packed=packed)
    assert_refused(kind, state, r"head\.weight")


def tensors_of(value, path=()):
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    )
    for key, item in items:
        if torch.is_tensor(item):
            yield (*path, key), item
        else:
            yield from tensors_of(item, (*path, key))


def replaced(state, path, tensor):
    """The state with another tensor at a path of keys."""
    state = copy.deepcopy(state)
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = tensor
    return state


CUTS = {
    "last entry": lambda t: t.reshape(-1)[:-1],
    "half": lambda t: t.reshape(-1)[: t.numel() // 2],
    "one more": lambda t: torch.cat([t.reshape(-1), t.reshape(-1)[:1]]),
}


@kinds
@packings
@pytest.mark.parametrize("cut", CUTS)
def test_every_tensor_cut_short_or_too_long(kind, packed, cut):
    state = attach(kind, scramble(Net())).get_quantized_state(packed=packed)
    tensors = list(tensors_of(state))
    assert len(tensors) >= 6
    for path, tensor in tensors:
        if tensor.numel() > 1:
            owner = r"(conv|norm|head)\.\w+|payload"
            assert_refused(kind, replaced(state, path, CUTS[cut](tensor)), owner)
    restore_quantized_state(Net(), state)  # the whole one fits


@kinds
@packings
def test_every_tensor_left_out(kind, packed):
    state = attach(kind, scramble(Net())).get_quantized_state(packed=packed)
    for path, _ in tensors_of(state):
        broken = copy.deepcopy(state)
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        assert_refused(kind, broken, "")


@kinds
@pytest.mark.parametrize(
    "state", [{}, {"a": 1}, None, [], torch.zeros(3)], ids=["empty", "a", "none", "list", "tensor"]
)
def test_no_state_at_all(kind, state):
    assert_refused(kind, state, "")


def test_a_plain_state_dict_is_no_quantized_state():
    assert_refused(DiffQuantizer, Net().state_dict(), "")


def test_what_is_refused_inside_of_quantize_leaves_the_stored_values_in_place():
    model, other = Net(), NoNorm()
    quantizer = attach(UniformQuantizer, model)
    with quantizer.enter_quantize():
        before = snapshot(model)
        with pytest.raises(ValueError, match=r"lacks 'norm\.num_batches_tracked'"):
            quantizer.restore_quantized_state(attach(UniformQuantizer, other).get_quantized_state())
        assert_same(snapshot(model), before)
    assert not torch.equal(model.conv.weight, before["conv.weight"])
