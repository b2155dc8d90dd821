"""float="float16": what is not quantized in half the bytes where it stays finite; and what an option may be."""

import pytest
import torch
from helpers.storage_models import (
    WAYS,
    Mixed,
    Net,
    Tied,
    assert_same,
    attached,
    network,
    same_bits,
    snapshot,
    weights_of,
)

from diffq_exp import storage


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor that is stored as float16 comes back as."""
    return tensor.half().to(tensor.dtype)


@pytest.mark.parametrize("build", [Net, Mixed, Tied])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("coding", storage.write.CODINGS)
def test_what_is_loaded_is_the_rounded_network(way, build, coding, path):
    """Quantized tensors as they are, the others rounded, integers untouched, bit for bit."""
    source = attached(way, network(build))
    storage.save(source, path, coding=coding, float="float16")
    plain, stored = storage.stored_model_of(source), storage.read(path)[0]
    fresh = network(build, seed=1)
    storage.load(path, fresh)
    loaded = weights_of(fresh)
    assert set(loaded) == set(plain.values())
    for name in loaded:
        value, kept = plain.value(name), plain.tied.get(name, name)
        if kept in plain.plain() and value.is_floating_point():
            assert stored.plain()[kept].dtype == torch.float16
            value = halved(value)
        assert same_bits(loaded[name], value.to(loaded[name].dtype)), name


def test_it_takes_two_bytes_less_for_each(path):
    sizes = [len(storage.serialize(network(), float=kind)) for kind in ("float32", "float16")]
    entries = sum(value.numel() for value in network().state_dict().values() if value.is_floating_point())
    assert abs(sizes[0] - sizes[1] - 2 * entries) < 40


@pytest.mark.parametrize(("value", "finite"), [
    (1e6, False), (65504.0, True), (65519.0, True), (65520.0, False), (-1e6, False), (1e-9, True),
    (float("inf"), True), (-float("inf"), True), (float("nan"), True),
])  # fmt: skip
def test_what_would_not_stay_finite_is_left(path, value, finite):
    """The whole tensor, even for one entry; what is infinite or NaN already stays so in two bytes."""
    model = network()
    model.norm.running_var[2] = value
    with torch.no_grad():
        model.conv.bias[0] = value
    storage.save(model, path, float="float16")
    stored = storage.read(path)[0]
    for name, tensor in (("norm.running_var", model.norm.running_var), ("conv.bias", model.conv.bias)):
        kept = stored.plain()[name]
        assert kept.dtype == (torch.float16 if finite else torch.float32)
        assert same_bits(kept, tensor.half() if finite else tensor.detach())
    assert stored.buffers["norm.running_mean"].dtype == torch.float16
    fresh = network(seed=1)
    storage.load(path, fresh)
    assert same_bits(fresh.norm.running_var, halved(model.norm.running_var) if finite else model.norm.running_var)


def test_the_network_in_memory_is_left_alone(path):
    model = network()
    before = snapshot(model)
    storage.save(model, path, float="float16")
    assert_same(snapshot(model), before)


def test_float32_leaves_halves_as_they_are(path):
    model = network().to(torch.bfloat16)
    storage.save(model, path)
    assert_same(storage.read(path)[0].plain(), storage.stored_model_of(model).plain())
    storage.save(model, path, float="float16")
    assert {value.dtype for value in storage.read(path)[0].floats.values()} == {torch.float16}


@pytest.mark.parametrize("option", ["float", "coding"])
@pytest.mark.parametrize("value", ["float8", "", "AUTO", None, 16, True])
def test_another_option_is_refused(path, option, value):
    """In a line that says which values are allowed; no file is left."""
    numbers = ", ".join(f"int{bits}" for bits in range(4, 16))
    allowed = {"coding": "auto, packed", "float": f"float32, float16, {numbers}"}[option]
    for call in (lambda: storage.save(network(), path, **{option: value}),
                 lambda: storage.serialize(network(), **{option: value})):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{option}={value!r}: allowed are {allowed}$"):
            call()
    assert list(path.parent.iterdir()) == []
