"""What shares memory, or is no array: tied where it is one tensor, else refused by name before training."""

import time

import pytest
import torch
from helpers.storage_models import assert_same
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer, quantizer_of
from diffq_exp.stored import memory
from diffq_exp.stored.memory import check_apart

KINDS = [DiffQuantizer, UniformQuantizer, LSQ, RateQuantizer]
WAYS = [*KINDS, None]


class Layers(nn.Module):
    """Two layers, with something odd about them."""

    def __init__(self, odd=lambda model: None):
        super().__init__()
        self.body, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        odd(self)

    def forward(self, x):
        return self.other(self.body(x))


def source_of(kind, model, **how):
    """What is stored: a quantizer of this kind, or the model itself."""
    if kind is None:
        return model.eval()
    quantizer = kind(model.eval(), min_size=0, **how)
    quantizer.no_optimizer()
    return quantizer


# ---- works -----------------------------------------------------------------------------------------------------


def shared_memory(model):
    model.other.weight.data = model.body.weight.data


def shared_parameter(model):
    model.other.weight = model.body.weight


def buffer_of_a_buffer(model):
    model.register_buffer("one", torch.arange(3.0))
    model.register_buffer("two", model.one)


def buffer_of_a_float(model):
    model.register_buffer("ema", model.body.bias.detach())


def interleaved(model):
    both = torch.arange(6.0)
    model.register_buffer("even", both[::2])
    model.register_buffer("odd", both[1::2])


def expanded(model):
    model.register_buffer("ones", torch.ones(1, 3).expand(4, 3))


def wrapped(model):
    model.body = checkpoint_wrapper(model.body)
    model.other = checkpoint_wrapper(model.other)


def tied_and_wrapped(model):
    shared_parameter(model)
    wrapped(model)


ODD = [shared_memory, shared_parameter, buffer_of_a_buffer, buffer_of_a_float, interleaved, expanded, wrapped]


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("odd", [*ODD, tied_and_wrapped])
def test_what_is_stored_is_read_back(kind, odd, tmp_path):
    torch.manual_seed(0)
    model, how = Layers(odd), {"exclude": ["*.bias"]}
    source = source_of(kind, model, **(how if kind else {}))
    storage.check_storable(source)
    with torch.no_grad():
        model.body.weight.add_(1)
    size = storage.save(source, tmp_path / "m")
    fresh = Layers(odd).eval()
    storage.load(tmp_path / "m", fresh)
    x = torch.rand(2, 8)
    assert torch.equal(fresh(x), model(x))
    again = Layers(odd)
    source_of(kind, again, **(how if kind else {}))
    storage.load(tmp_path / "m", again)
    assert torch.equal(again(x), model(x))
    assert size == len(storage.serialize(again if kind is None else quantizer_of(again)))


@pytest.mark.parametrize("kind", WAYS)
def test_memory_that_is_shared_is_stored_and_counted_once(kind):
    sizes = {}
    for odd in (shared_memory, shared_parameter, tied_and_wrapped):
        torch.manual_seed(0)
        source = source_of(kind, Layers(odd))
        soft = None if kind is None else source.true_model_size()
        sizes[odd] = soft, storage.stored_model_of(source).tied, storage.serialize(source)
    assert len({str(found) for found in sizes.values()}) == 1
    assert sizes[shared_memory][1] == {"other.weight": "body.weight"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_network_has_the_file_of_one_that_is_not(kind):
    files = []
    for odd in (lambda model: None, wrapped):
        torch.manual_seed(0)
        quantizer = source_of(kind, Layers(odd), exclude=["body.bias"])
        assert all(name in quantizer.model.state_dict() for name in quantizer.learned())
        files.append(storage.serialize(quantizer))
    assert files[0] == files[1]


def test_gradients_of_shared_memory_are_summed_as_of_one_parameter():
    grads = []
    for odd in (shared_memory, shared_parameter):
        torch.manual_seed(0)
        model = Layers(odd)
        source_of(UniformQuantizer, model, qat=True)
        model.train()(torch.ones(2, 8)).square().sum().backward()
        grads.append(model.body.weight.grad)
    assert torch.equal(*grads)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_in_one_memory_are_one_parameter(kind):
    """Inside of quantize(), after .to(), for DDP, after detach()."""
    model = Layers(shared_memory)
    quantizer = source_of(kind, model, exclude=["*.bias"])
    assert model.other.weight is model.body.weight
    assert len({id(param) for param in quantizer.base_parameters()}) == len(quantizer.base_parameters()) == 3
    x = torch.ones(2, 8)
    before = model(x)
    with quantizer.enter_quantize():
        assert torch.equal(model(x), before)
    model.double()
    with torch.no_grad():
        model.body.weight += 1
    quantizer.detach()
    assert torch.equal(model.body.weight, model.other.weight)


def test_one_of_them_frozen_is_refused():
    model = Layers(shared_memory)
    model.body.weight.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'body.weight' and 'other.weight' lie in one memory, and only one"):
        DiffQuantizer(model, min_size=0)
    assert model.other.weight is not model.body.weight and not hasattr(model.body, "weight_diffq")


def test_a_quantized_parameter_that_repeats_its_entries_is_read_back(tmp_path):
    def odd(model):
        model.body.weight = nn.Parameter(torch.randn(1, 8).expand(8, 8))

    quantizer, fresh = source_of(UniformQuantizer, Layers(odd), bits=4), Layers(odd).eval()
    storage.check_storable(quantizer)
    storage.save(quantizer, tmp_path / "m")
    storage.load(tmp_path / "m", fresh)
    assert torch.equal(fresh.body.weight, storage.stored_model_of(quantizer).value("body.weight"))


# ---- is refused ------------------------------------------------------------------------------------------------


class Anew(nn.Module):
    """Its state_dict has a tensor that it makes at each call."""

    def get_extra_state(self):
        return torch.ones(3)

    def set_extra_state(self, state):
        pass


def overlapping(model):
    model.other.bias.data = model.body.weight.data.view(-1)[4:12]


def transposed(model):
    model.other.weight.data = model.body.weight.data.t()


def other_type(model):
    model.register_buffer("raw", model.body.weight.detach().view(torch.int32))


REFUSED = {
    "'mask' cannot be stored: it is sparse": lambda m: m.register_buffer("mask", torch.eye(3).to_sparse()),
    "'csr' cannot be stored: it is sparse": lambda m: m.register_buffer("csr", torch.eye(3).to_sparse_csr()),
    "'sparse' cannot be stored: it is sparse": lambda m: m.register_parameter(
        "sparse", nn.Parameter(torch.eye(3).to_sparse())
    ),
    "'phase' is of type complex64": lambda m: m.register_parameter(
        "phase", nn.Parameter(torch.ones(3, dtype=torch.complex64))
    ),
    "'turns' is of type complex128": lambda m: m.register_buffer("turns", torch.ones(3, dtype=torch.complex128)),
    "'narrow' is of type float8_e5m2": lambda m: m.register_buffer("narrow", torch.ones(3).to(torch.float8_e5m2)),
    "'empty' cannot be stored: it is on the meta device": lambda m: m.register_buffer(
        "empty", torch.ones(3, device="meta")
    ),
    "'later.weight' has no shape yet": lambda m: m.add_module("later", nn.LazyLinear(3)),
    "'anew._extra_state' is made anew": lambda m: m.add_module("anew", Anew()),
    "'body.weight' and 'other.bias' share a part": overlapping,
    "'body.weight' and 'other.weight' share a part": transposed,
    "'raw' and 'body.weight' share a part": other_type,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_read_back_is_refused_by_name(kind, reason):
    with pytest.raises(ValueError, match=reason):
        storage.check_storable(source_of(kind, Layers(REFUSED[reason])))


@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_in_the_memory_of_a_quantized_parameter(kind):
    def odd(model):
        model.register_buffer("ema", model.body.weight.detach())

    with pytest.raises(ValueError, match=r"'ema' is a buffer in the memory of 'body.weight', which must not be q"):
        storage.check_storable(source_of(kind, Layers(odd)))
    storage.check_storable(source_of(kind, Layers(odd), exclude=["body.weight"]))


def test_so_is_a_buffer_that_no_file_has():
    def odd(model):
        model.register_buffer("ema", model.body.weight.detach(), persistent=False)

    with pytest.raises(ValueError, match=r"'ema' is a buffer in the memory of 'body.weight'"):
        storage.check_storable(source_of(LSQ, Layers(odd)))
    assert "ema" not in storage.stored_model_of(source_of(LSQ, Layers(odd), exclude=["body.weight"])).tied


def test_a_buffer_that_no_file_has_in_a_part_of_a_weight():
    def odd(model):
        model.register_buffer("rows", model.body.weight.detach()[2:4], persistent=False)
        model.register_buffer("mask", torch.ones(4, 4), persistent=False)
        model.register_buffer("corner", model.mask[:2, :2], persistent=False)

    with pytest.raises(ValueError, match=r"'body.weight' and 'rows' share a part of their memory"):
        storage.check_storable(source_of(UniformQuantizer, Layers(odd)))
    storage.check_storable(source_of(UniformQuantizer, Layers(odd), exclude=["body.weight"]))


@pytest.mark.parametrize("wrapped", [lambda layer: layer, checkpoint_wrapper])
def test_a_type_of_quantized_weights_that_no_file_has(wrapped):
    def odd(model):
        model.body.weight = nn.Parameter(model.body.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
        model.body = wrapped(model.body)

    with pytest.raises(ValueError, match=r"'body.weight' is of type float8_e4m3fn, which cannot be stored"):
        storage.check_storable(source_of(UniformQuantizer, Layers(odd)))


def test_many_views_of_one_memory_are_compared_in_linear_time():
    whole = torch.zeros(2000, 100)
    views = {str(place): whole[:, place] for place in range(100)}
    began = time.process_time()
    check_apart(views)
    assert time.process_time() - began < 1
    with pytest.raises(ValueError, match="'7' and 'other' share a part of their memory"):
        check_apart({**views, "other": whole[:, 7:8]})


def test_tensors_one_behind_the_other_in_one_memory_need_no_marks(monkeypatch):
    monkeypatch.setattr(memory, "_Marks", None)
    flat = torch.zeros(30)
    check_apart(
        {"last": flat[20:], "first": flat[:10].view(2, 5), "again": flat[:10].view(2, 5), "gap": flat[12:15]}
    )
    with pytest.raises(TypeError):
        check_apart({"last": flat[20:], "first": flat[:21:2]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [shared_memory, shared_parameter])
def test_one_tensor_that_is_quantized_apart(kind, odd):
    """Two sets of bits may be stored, but such a network cannot take both."""
    quantizer = source_of(kind, Layers(odd), detect_bound=False)
    with pytest.raises(ValueError, match=r"'other.weight' are one tensor and cannot be quantized apart"):
        storage.check_storable(quantizer)
    storage.serialize(quantizer)


# ---- networks that take nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("part", ["all of it", "a layer"])
def test_a_network_on_the_meta_device_takes_nothing(kind, part, tmp_path):
    source = source_of(kind, Layers())
    storage.save(source, tmp_path / "m")
    fresh = Layers()
    source_of(kind, fresh)
    (fresh if part == "all of it" else fresh.other).to("meta")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=r"no memory for '(body|other).bias', .*to_empty") as caught:
        storage.load(tmp_path / "m", fresh)
    assert str(tmp_path / "m") in str(caught.value)
    if kind is not None:
        with pytest.raises(ValueError, match="no memory for"):
            quantizer_of(fresh).restore_quantized_state(source.get_quantized_state())
    if part == "a layer":
        assert_same({"body.weight": fresh.body.weight}, {"body.weight": before["body.weight"]})
    fresh.to_empty(device="cpu")
    storage.load(tmp_path / "m", fresh.eval())
    x = torch.rand(2, 8)
    assert torch.equal(fresh(x), source.model(x) if kind else source(x))


def test_so_does_a_network_without_shapes(tmp_path):
    storage.save(nn.Linear(3, 4), tmp_path / "m")
    with pytest.raises(ValueError, match=r"no memory for 'bias', 'weight'"):
        storage.load(tmp_path / "m", nn.LazyLinear(4))


def test_and_what_is_made_anew_by_its_state_dict(tmp_path):
    plain = nn.Sequential(nn.Linear(2, 2))
    plain.register_buffer("_extra_state", torch.ones(3))
    storage.save(plain, tmp_path / "m")
    fresh = Anew()
    fresh.add_module("0", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'_extra_state' is made anew"):
        storage.load(tmp_path / "m", fresh)


@pytest.mark.parametrize("kind", [LSQ, RateQuantizer])
@pytest.mark.parametrize("stored_per_channel", [True, False])
def test_steps_of_another_count_are_one_clear_line(kind, stored_per_channel, tmp_path):
    storage.save(source_of(kind, Layers(), per_channel=stored_per_channel), tmp_path / "m")
    fresh = Layers()
    source_of(kind, fresh, per_channel=not stored_per_channel)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ValueError, match=r"'body.weight' is stored on a grid 'step' with (1|8) numbers, the quan"):
        storage.load(tmp_path / "m", fresh)
    assert_same(fresh.state_dict(), before)
