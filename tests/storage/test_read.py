"""Stored networks come back bit for bit, from one plain file that is whole or not there."""

import pickle

import pytest
import torch
from helpers.storage_models import (
    WAYS,
    Bag,
    Mixed,
    Net,
    Setting,
    Tied,
    as_seen,
    assert_same,
    attached,
    diffq,
    images,
    named_logits,
    network,
    parts_of,
    same_bits,
    same_content,
    same_stored,
    snapshot,
    stored_bits,
    weights_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from diffq_exp import storage
from diffq_exp.common.units import MB
from diffq_exp.quant import DiffQuantizer, UniformQuantizer
from diffq_exp.storage import stored_model_of

ways = pytest.mark.parametrize("way", WAYS)
CONFIG = {"model": {"name": "net", "keys": {"num_classes": 5}}, "lr": 0.1, "none": None, "é": [1, True]}


# ---- round trips ----------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("build", [Net, Mixed, Tied])
@pytest.mark.parametrize("coding", ["auto", "packed"])
def test_round_trip(way, build, coding, tmp_path):
    """Into the same parts, into a fresh network with and without a quantizer, with the same outputs."""
    model = network(build)
    source = attached(way, model)
    path = tmp_path / "model.safetensors"
    size = storage.save(source, path, CONFIG, coding=coding)
    assert path.stat().st_size == size
    stored, config = storage.read(path)
    assert config == CONFIG
    same_stored(stored, stored_model_of(source))
    x = torch.arange(11) if build is Tied else images()
    plain, again = network(build, seed=1), network(build, seed=2)
    other = attached(way, again)
    for fresh in (plain, again):
        storage.load(path, fresh)
        if build is Mixed:
            fresh.left_out.copy_(model.left_out)
        assert_same(weights_of(fresh), as_seen(source, fresh))
        assert same_bits(fresh(x), model(x))
    same_content(storage.serialize(other, CONFIG, coding=coding), path.read_bytes())


def test_all_widths_are_in_the_round_trip(tmp_path):
    """That the test above is about 1 to 15 bits, tail groups, several sets of widths."""
    quantizer = diffq(network(), group_size=8)
    storage.save(quantizer, tmp_path / "m")
    stored, _ = storage.read(tmp_path / "m")
    widths = torch.cat([tensor.bits for tensor in stored.tensors.values()])
    assert {1, 15} <= set(widths.tolist()) and len(set(widths.tolist())) > 8
    assert any(len(tensor.levels) % 8 for tensor in stored.tensors.values())
    for name, logits in named_logits(quantizer.model).items():
        assert stored.tensors[name].bits.tolist() == stored_bits(logits, Setting(group_size=8, min_bits=1))


@pytest.mark.parametrize("way", ["diffq 8, tails", "uniform 4", "lsq 3", "none"])
def test_channels_last(way, tmp_path):
    model = network().to(memory_format=torch.channels_last)
    source = attached(way, model)
    storage.save(source, tmp_path / "m")
    fresh = network(seed=1).to(memory_format=torch.channels_last)
    storage.load(tmp_path / "m", fresh)
    assert fresh.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert_same(weights_of(fresh), as_seen(source, model))
    assert torch.allclose(fresh(images()), model(images()), atol=1e-5)  # convolutions may sum in another order
    rows = network()  # the same weights in the usual layout are stored in the same bytes
    same_content(storage.serialize(attached(way, rows)), storage.serialize(source))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("way", ["diffq 8, tails", "uniform 2.5", "lsq 3", "none"])
def test_parameters_of_other_types(way, dtype, tmp_path):
    model = network().to(dtype)
    source = attached(way, model)
    storage.save(source, tmp_path / "m")
    same_stored(storage.read(tmp_path / "m")[0], stored_model_of(source))
    fresh = network(seed=1).to(dtype)
    storage.load(tmp_path / "m", fresh)
    assert_same(weights_of(fresh), as_seen(source, model))
    x = images().to(dtype)
    assert same_bits(fresh(x), model(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("last", [True, False])
def test_tensors_without_entries(dtype, last, tmp_path):
    def build():
        model = nn.Module()
        model.register_buffer("nothing", torch.empty(0, 4, dtype=dtype))
        model.weight = nn.Parameter(torch.empty(0) if last else torch.ones(3))
        return model

    storage.save(build(), tmp_path / "m")
    same_stored(storage.read(tmp_path / "m")[0], stored_model_of(build()))
    storage.load(tmp_path / "m", build())


def test_float16_is_stored_in_two_bytes(tmp_path):
    wide = storage.serialize(attached("none", network()))
    quantizer = DiffQuantizer(network(), min_size=1, float16=True)  # nothing is quantized
    entries = sum(p.numel() for p in Net().parameters())
    assert len(wide) - len(storage.serialize(quantizer)) > 2 * entries - 200
    storage.save(quantizer, tmp_path / "m")
    stored, _ = storage.read(tmp_path / "m")
    assert all(value.dtype == torch.float16 for value in stored.floats.values())


shapes = st.lists(st.lists(st.integers(1, 7), min_size=0, max_size=3), min_size=1, max_size=3)


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shapes, st.sampled_from([0, 1, 2, 5, 8, 100]), st.sampled_from([0, 1, 2, 3.3, 8]), st.integers(0, 2**31))
def test_any_shapes_groups_and_widths(tmp_path, shapes, group_size, bits, seed):
    """Learned widths with bits 0, else one width."""
    torch.manual_seed(seed)
    model = Bag(*map(tuple, shapes)).eval()
    if bits == 0:
        quantizer = diffq(model, seed, group_size=group_size)
    else:
        quantizer = UniformQuantizer(model, bits=bits, min_size=0)
    size = storage.save(quantizer, tmp_path / "m")
    stored, _ = storage.read(tmp_path / "m")
    same_stored(stored, quantizer.stored_model())
    fresh = Bag(*map(tuple, shapes)).eval()
    storage.load(tmp_path / "m", fresh)
    for one, other in zip(fresh(), model(), strict=True):
        assert same_bits(one, other)
    assert size == quantizer.compressed_model_size() * MB


# ---- the file -------------------------------------------------------------------------------------------------


@ways
def test_compressed_model_size_is_that_of_the_file(way, tmp_path):
    source = attached(way, network())
    if way != "none":
        assert source.compressed_model_size() * MB == storage.save(source, tmp_path / "m")
        assert (tmp_path / "m").stat().st_size == source.compressed_model_size() * MB


@ways
def test_the_same_network_gives_the_same_content(way):
    one, other, another = (storage.serialize(attached(way, network(seed=seed)), CONFIG) for seed in (0, 0, 1))
    same_content(one, other)
    assert len(one) == len(other)
    with pytest.raises(AssertionError):
        same_content(one, another)


def test_the_same_network_gives_the_same_bytes():
    """As build caches, signatures by content and artifacts want it."""
    files = {storage.serialize(attached("diffq 8, tails", network()), CONFIG) for _ in range(8)}
    assert len(files) == 1


def test_a_model_stands_for_its_quantizer():
    quantizer = diffq(network(), group_size=8)
    same_content(storage.serialize(quantizer.model), storage.serialize(quantizer))
    same_content(storage.serialize(quantizer.stored_model()), storage.serialize(quantizer))


@ways
def test_any_reader_of_safetensors_opens_it(way, tmp_path):
    storage.save(attached(way, network()), tmp_path / "m")
    with safe_open(tmp_path / "m", "pt") as file:
        assert file.keys() == ["data"] and file.get_tensor("data").numel() > 100
        assert file.metadata() == {"format": "diffq_exp.model/3"}


def test_few_bytes_besides_the_payload(tmp_path):
    """The header does not grow with the number of tensors; the index takes some dozen bytes for each."""
    small, large = Bag(*[(8, 8)] * 2), Bag(*[(8, 8)] * 102)
    sizes = [UniformQuantizer(model, bits=4, min_size=0).compressed_model_size() for model in (small, large)]
    assert (sizes[1] - sizes[0]) * MB < 100 * (32 + 8 + 1 + 30)


def test_nothing_is_pickled_nor_unpickled(tmp_path, monkeypatch):
    def refuse(*args, **keywords):
        raise AssertionError("pickle")

    for owner, name in (
        (pickle, "load"), (pickle, "loads"), (pickle, "dump"), (pickle, "dumps"), (pickle, "Unpickler"),
        (torch, "load"), (torch, "save"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)
    quantizer = diffq(network(), group_size=8)
    storage.save(quantizer, tmp_path / "m", CONFIG)
    storage.load(tmp_path / "m", network(seed=1))


def test_the_configuration_is_plain_json(tmp_path):
    storage.save(network(), tmp_path / "m", CONFIG)
    assert parts_of((tmp_path / "m").read_bytes()).index["config"] == CONFIG
    storage.save(network(), tmp_path / "m")
    assert storage.read(tmp_path / "m")[1] == {}


def test_training_mode_and_float_weights_are_not_touched(tmp_path):
    model = network().train()
    quantizer = diffq(model, group_size=8)
    before = snapshot(model)
    storage.save(quantizer, tmp_path / "m")
    assert model.training
    assert_same(snapshot(model), before)
