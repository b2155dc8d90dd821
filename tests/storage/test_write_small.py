"""fold=True and float="int8" to "int15": batch norms as a scale and a shift, parameters on a grid of one group."""

import pytest
import torch
from helpers.storage_models import (
    WAYS,
    Mixed,
    Net,
    Tied,
    attached,
    images,
    network,
    same_bits,
    snapshot,
    weights_of,
    wide,
)
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, RateQuantizer, UniformQuantizer
from diffq_exp.storage import stored_model_of
from diffq_exp.stored.floats import narrowed
from diffq_exp.stored.network import StoredModel, write_into
from diffq_exp.stored.state import pack_state, unpack_state

# ---- fold -----------------------------------------------------------------------------------------------------


def norm_of(kind: type, channels: int = 5, **options) -> nn.Module:
    """A batch norm in evaluation, with random statistics and a random scale and shift."""
    source, norm = torch.Generator().manual_seed(channels), kind(channels, **options)
    with torch.no_grad():
        for value in norm.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=source) + 0.1)
        if norm.running_mean is not None:
            norm.running_mean.neg_()
            norm.num_batches_tracked.fill_(12)
    return norm.eval()


def same_function(one: nn.Module, other: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        assert torch.allclose(one(x), other(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape"), [
    (nn.BatchNorm1d, (4, 5)), (nn.BatchNorm2d, (4, 5, 2, 3)), (nn.BatchNorm3d, (2, 5, 2, 2, 2)),
])  # fmt: skip
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_a_folded_batch_norm_computes_the_same(kind, shape, eps, path):
    norm, before = norm_of(kind, eps=eps), snapshot(norm_of(kind, eps=eps))
    storage.save(norm, path, fold=True)
    assert all(same_bits(value, before[name]) for name, value in snapshot(norm).items())
    stored = storage.read(path)[0]
    assert (stored.buffers["running_mean"] == 0).all() and (stored.buffers["running_var"] == 1 - eps).all()
    assert stored.buffers["num_batches_tracked"] == 0
    fresh = kind(5, eps=eps).eval()
    storage.load(path, fresh)
    same_function(norm, fresh, torch.randn(shape))
    again = stored_model_of(fresh, fold=True)
    for name, value in fresh.state_dict().items():
        assert torch.allclose(again.value(name), value)


class Own(nn.BatchNorm1d):
    """A subclass, which may compute something else."""


def shares_a_weight() -> nn.Module:
    model = nn.Sequential(norm_of(nn.BatchNorm1d), norm_of(nn.BatchNorm1d))
    model[1].weight = model[0].weight
    return model


def shares_a_buffer() -> nn.Module:
    model = nn.Sequential(norm_of(nn.BatchNorm1d), norm_of(nn.BatchNorm1d))
    model[1].running_var = model[0].running_var
    return model


def is_used_twice() -> nn.Module:
    norm = norm_of(nn.BatchNorm1d)
    return nn.Sequential(norm, nn.ReLU(), norm)


def is_quantized() -> nn.Module:
    model = nn.Sequential(norm_of(nn.BatchNorm1d))
    UniformQuantizer(model, bits=8, min_size=0)
    return model


def is_not_finite() -> nn.Module:
    norm = norm_of(nn.BatchNorm1d)
    norm.running_mean[1] = float("inf")
    return norm


def overflows_in_halves() -> nn.Module:
    norm = norm_of(nn.BatchNorm1d).half()
    norm.running_mean.fill_(60000.0)
    return norm


@pytest.mark.parametrize("build", [
    lambda: norm_of(nn.BatchNorm1d, affine=False), lambda: norm_of(nn.BatchNorm1d, track_running_stats=False),
    lambda: norm_of(Own), shares_a_weight, shares_a_buffer, is_used_twice, is_quantized, is_not_finite,
    overflows_in_halves, lambda: nn.LayerNorm(5),
])  # fmt: skip
def test_what_is_left_as_it_is(build, path):
    model = build()
    assert storage.serialize(model, fold=True) == storage.serialize(model)
    storage.save(model, path, fold=True)
    storage.load(path, build())


@pytest.mark.parametrize("kind", [RateQuantizer, LSQ, None])
def test_a_folded_network_is_loaded_with_and_without_a_quantizer(kind, path):
    """The norm is not quantized: by its dimensions, or by its name."""
    options = {} if kind is RateQuantizer else {"bits": 5, "exclude": ["norm.*"]}
    model = network()
    source = kind(model, min_size=0, **options) if kind else model
    storage.save(source, path, fold=True)
    for own in (kind, None):
        fresh = network(seed=1)
        if own:
            own(fresh, min_size=0, **options)
        storage.load(path, fresh)
        assert (fresh.norm.running_mean == 0).all() and fresh.norm.num_batches_tracked == 0
        same_function(model, fresh, images())


def test_fold_needs_the_network(path):
    with pytest.raises(TypeError, match="fold=True needs a network"):
        storage.save(stored_model_of(network()), path, fold=True)


# ---- integers -------------------------------------------------------------------------------------------------


def grids_of(tensors: dict[str, torch.Tensor], kind: str) -> StoredModel:
    return narrowed(StoredModel("none", {}, tensors, {}), kind)


@pytest.mark.parametrize("bits", range(8, 16))
def test_an_error_of_half_a_step(bits, path):
    torch.manual_seed(bits)
    tensors = {"one": torch.randn(40, 5), "other": 3 + torch.rand(300), "half": torch.randn(200).half()}
    storage.save(StoredModel("none", {}, tensors, {}), path, float=f"int{bits}")
    read = storage.read(path)[0]
    assert list(read.tensors) == list(tensors) and not read.floats
    for name, value in tensors.items():
        step = (value.float().max() - value.float().min()) / (2**bits - 1)
        rounding = step / 100 + (0.002 if name == "half" else 0)
        assert (read.value(name).float() - value.float()).abs().max() <= step / 2 + rounding
        assert read.value(name).dtype == value.dtype and read.tensors[name].bits.tolist() == [bits]


def test_tensors_that_a_grid_does_not_suit():
    """They are float16 where they stay finite, else as they are; so are constants, which take no bytes."""
    tensors = {
        "small": torch.randn(16), "constant": torch.full((99,), 0.5), "nan": torch.full((99,), float("nan")),
        "nothing": torch.empty(0, 3), "mixed": torch.cat([torch.randn(98), torch.tensor([float("inf")])]),
        "wide": torch.tensor([-3e38, 3e38] * 50), "double": torch.linspace(0, 1e300, 99, dtype=torch.float64),
        "zeros": torch.tensor([0.0, -0.0] * 50), "fits": torch.randn(17),
    }  # fmt: skip
    stored = grids_of(tensors, "int8")
    assert list(stored.tensors) == ["zeros", "fits"] and list(stored.floats) == [*tensors][:-2]
    for name, value in stored.floats.items():
        kept = name in ("constant", "nan", "wide", "double")
        assert value.dtype == (tensors[name].dtype if kept else torch.float16), name
    assert (stored.value("zeros") == 0).all()


def test_fifteen_bits_need_more_entries():
    sizes = {str(size): torch.randn(size) for size in (16, 17, 128, 129)}
    assert list(grids_of(sizes, "int8").tensors) == ["17", "128", "129"]
    assert list(grids_of(sizes, "int15").tensors) == ["129"]


def test_integers_and_buffers_are_not_on_a_grid(path):
    model = network(Mixed)
    model.register_buffer("table", torch.randn(99))
    storage.save(model, path, float="int8")
    stored = storage.read(path)[0]
    assert set(stored.tensors) == {"conv.weight", "head.weight"}
    assert stored.buffers["table"].dtype == torch.float16
    assert all(
        same_bits(stored.buffers[name], model.state_dict()[name]) for name in ("order", "mask", "codes", "steps")
    )


@pytest.mark.parametrize("value", ["int3", "int16", "int", "int08", "uint8"])
def test_other_integers_are_refused(value):
    with pytest.raises(ValueError, match=r"^float='u?int.*': allowed are float32, float16, int4, .*, int15$"):
        storage.serialize(network(), float=value)


@pytest.mark.parametrize("build", [Net, Tied])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_is_loaded_into_any_network(way, build, path):
    """With or without the quantizer: quantized tensors as they are, the others as their values on the grid."""
    make = (lambda seed: wide(seed)) if build is Net else (lambda seed: network(Tied, seed))
    source = attached(way, make(0))
    storage.save(source, path, float="int8")
    stored = storage.read(path)[0]
    plain = stored_model_of(source)
    assert list(stored.tensors)[: len(plain.tensors)] == list(plain.tensors)
    assert stored.shapes() == plain.shapes()
    for with_quantizer in (True, False):
        fresh = make(1)
        again = attached(way, fresh) if with_quantizer else fresh
        storage.load(path, fresh)
        for name, value in weights_of(fresh).items():
            assert torch.equal(value, stored.value(name).to(value.dtype)), name
        if with_quantizer and again is not fresh:
            assert stored_model_of(again).tensors.keys() == plain.tensors.keys()
            x = torch.arange(11) if build is Tied else images()
            bare = make(2)
            write_into(bare, stored)
            assert same_bits(fresh(x), bare(x))


def test_a_state_of_such_a_network():
    quantizer = RateQuantizer(wide(), step=0.5)
    stored = stored_model_of(quantizer, "int8")
    assert {"norm.weight", "norm.bias"} <= stored.tensors.keys() - quantizer.stored_model().tensors.keys()
    for packed in (True, False):
        other = RateQuantizer(wide(seed=1), step=1.5)
        other.restore_quantized_state(pack_state(stored, packed))
        assert torch.equal(other.model.norm.weight, stored.value("norm.weight"))
    assert unpack_state(pack_state(stored, True)).tensors.keys() == stored.tensors.keys()


def test_quantized_tensors_are_computed_once(monkeypatch, path):
    """One after the other, and none of them is kept."""
    quantizer, computed = LSQ(wide(), bits=4, min_size=0, exclude=["*.bias", "norm.*"]), []
    store = quantizer.store
    monkeypatch.setattr(quantizer, "store", lambda item, weight: computed.append(item.name) or store(item, weight))
    storage.save(quantizer, path, float="int8", fold=True)
    assert computed == quantizer.quantized_names
    assert len(storage.read(path)[0].tensors) > len(computed)
