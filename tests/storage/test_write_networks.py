"""Networks with something odd about them, by both codings: layouts, types, ties, tensors of one entry, NaN."""

import math

import pytest
import torch
from helpers.storage_models import (
    WAYS,
    Bag,
    Setting,
    as_seen,
    assert_same,
    attached,
    diffq,
    named_logits,
    network,
    parts_of,
    same_bits,
    same_stored,
    scramble,
    stored_bits,
    weights_of,
    wide,
)
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, UniformQuantizer

both = pytest.mark.parametrize("coding", ["auto", "packed"])


def rarely(value):
    """A case for the long tests."""
    return pytest.param(value, marks=pytest.mark.long)


DTYPES = [torch.float32, torch.bfloat16, rarely(torch.float16), rarely(torch.float64)]
QUANTIZERS = {
    "diffq": lambda model, **how: diffq(model, **how),
    "uniform": lambda model, group_size: UniformQuantizer(model, bits=3, min_size=0),
    "lsq": lambda model, group_size: LSQ(model, bits=3, min_size=0),
    "none": lambda model, group_size: None,
}


def codings(path) -> set[str]:
    return {coding for row in parts_of(path.read_bytes()).index["tensors"] for coding in row[6:8]}


def saved(model: nn.Module, kind: str, path, coding: str, group_size: int = 8) -> object:
    """Store a model with a quantizer; -> what is stored."""
    source = QUANTIZERS[kind](model.eval(), group_size=group_size) or model
    storage.save(source, path, coding=coding)
    same_stored(storage.read(path)[0], storage.stored_model_of(source))
    return source


@both
@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_types_and_layouts(path, kind, coding, dtype, layout):
    """A network large enough for entropy coding; the fresh one has either layout."""
    model = wide().to(dtype).to(memory_format=layout)
    source = saved(model, kind, path, coding)
    assert kind == "none" or codings(path) == ({"packed"} if coding == "packed" else {"packed", "ans"})
    for other in (torch.contiguous_format, torch.channels_last):
        fresh = wide(seed=1).to(dtype).to(memory_format=other)
        storage.load(path, fresh)
        assert fresh.conv.weight.is_contiguous(memory_format=other)
        assert_same(weights_of(fresh), as_seen(source, model))


@both
@pytest.mark.parametrize("kind", ["diffq", "lsq", "none"])
def test_a_network_of_another_type_takes_the_values_as_it_can(path, coding, kind):
    source = saved(wide(), kind, path, coding)
    for dtype in (torch.bfloat16, torch.float64):
        fresh = wide(seed=1).to(dtype)
        storage.load(path, fresh)
        for name, value in storage.stored_model_of(source).values().items():
            target = fresh.state_dict()[name]
            assert same_bits(target, value.to(target.dtype)), name


@both
@pytest.mark.parametrize("kind", QUANTIZERS)
@pytest.mark.parametrize("group_size", [0, 8, *map(rarely, (1, 2**40))])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1), (3,), (7, 1)])
def test_tensors_of_few_entries(path, coding, kind, group_size, shape):
    """A scalar among them, and groups that are larger than the tensor."""
    model = scramble(Bag(shape, (1,), shape))
    source = saved(model, kind, path, coding, group_size)
    fresh = Bag(shape, (1,), shape)
    QUANTIZERS[kind](fresh, group_size=group_size)
    storage.load(path, fresh.eval())
    assert_same(weights_of(fresh), as_seen(source, fresh))
    for one, other in zip(fresh(), model(), strict=True):
        assert same_bits(one, other)
    if kind == "diffq":
        for name, logits in named_logits(model).items():
            table = storage.read(path)[0].tensors[name].bits.tolist()
            assert table == stored_bits(logits, Setting(group_size=group_size, min_bits=1))


@both
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kept", ["float32", "float16"])
def test_nan_and_infinity_in_buffers(path, coding, way, kept):
    """They come back as they are: only what is quantized has to be finite."""
    model = network()
    model.norm.running_mean[:3] = torch.tensor([math.nan, math.inf, -math.inf])
    storage.save(attached(way, model), path, coding=coding, float=kept)
    fresh = network(seed=1)
    storage.load(path, fresh)
    expected = model.norm.running_mean.half().float() if kept == "float16" else model.norm.running_mean
    assert same_bits(fresh.norm.running_mean.nan_to_num(7), expected.nan_to_num(7))
    assert fresh.norm.running_mean.isnan().tolist() == [True] + [False] * 5


class TwoLayers(nn.Module):
    """Two layers of one weight, or of one each; large enough to be entropy-coded."""

    def __init__(self, tied: bool):
        super().__init__()
        self.one, self.other = nn.Linear(64, 64), nn.Linear(64, 64)
        if tied:
            self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(x))


@both
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_tied_tensors(path, coding, kind):
    """Stored once; a network that is not tied gets the values under both names."""
    model = scramble(TwoLayers(tied=True))
    source = saved(model, kind, path, coding)
    stored = storage.read(path)[0]
    assert stored.tied == {"other.weight": "one.weight"} and "other.weight" not in stored.tensors
    for tied in (True, False):
        fresh = TwoLayers(tied)
        storage.load(path, fresh)
        assert_same(weights_of(fresh), as_seen(source, fresh))
        assert (fresh.other.weight is fresh.one.weight) == tied
        assert same_bits(fresh.one.weight, fresh.other.weight)


@both
@pytest.mark.parametrize("kind", QUANTIZERS)
def test_two_values_for_what_is_one_tensor(path, coding, kind):
    model = scramble(TwoLayers(tied=False))
    saved(model, kind, path, coding)
    fresh = TwoLayers(tied=True)
    before = fresh.one.weight.clone()
    with pytest.raises(ValueError, match="one tensor in the network") as caught:
        storage.load(path, fresh)
    assert str(path) in str(caught.value) and torch.equal(fresh.one.weight, before)


@both
@pytest.mark.parametrize("kind", ["diffq", "uniform", "lsq"])
@pytest.mark.parametrize("value", [0.0, -0.0, 1.25, -3e-39, 1e30])
def test_constant_tensors(path, coding, kind, value):
    model = wide()
    with torch.no_grad():
        model.conv.weight.fill_(value)
    source = saved(model, kind, path, coding)
    fresh = wide(seed=1)
    storage.load(path, fresh)
    assert_same(weights_of(fresh), as_seen(source, fresh))
    if kind != "lsq":
        assert (fresh.conv.weight == value).all()


@both
def test_weights_that_are_seen_through_a_transposed_view(path, coding):
    """A parameter whose memory is not in the order of its entries."""

    def build(seed):
        model = wide(seed)
        model.head.weight = nn.Parameter(model.head.weight.detach().t().contiguous().t())
        return model

    source = saved(build(0), "diffq", path, coding)
    fresh = build(1)
    storage.load(path, fresh)
    assert not fresh.head.weight.is_contiguous()
    assert_same(weights_of(fresh), as_seen(source, fresh))
