"""Networks that a file describes: nothing of them stays on the meta device, and hostile files get no memory."""

import importlib
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from helpers import stored_networks
from helpers.stored_files import changed
from torch import nn

from diffq_exp import evaluate, load_model, models, storage
from diffq_exp.models.rebuilding import is_rebuilding, rebuilding
from diffq_exp.runs import allowance
from diffq_exp.runs.allowance import Allowance, TooLarge
from diffq_exp.storage.ledger import ledger

OWN = "helpers.constant_net"
IMAGE_KEYS = {"num_classes": 4, "in_channels": 1, "image_size": 8}
TEXT_KEYS = {"vocabulary": 8, "length": 8}


def told(target: str, keys: dict, **node) -> dict:
    """A configuration whose network is made so."""
    conf = stored_networks.config()
    conf["model"] = {"name": target.rpartition(".")[2], "node": {"_target_": target, **node}, "keys": keys}
    return conf


def refusal(path, conf, allow=()) -> str:
    stored_networks.store(path, conf)
    started = time.process_time()
    with pytest.raises(ValueError) as caught:
        load_model(path, allow)
    text = str(caught.value)
    assert time.process_time() - started < 2 and str(path) in text and "\n" not in text
    return text


# ---- a user's own module ----------------------------------------------------------------------------------------


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """The file of a network whose module is not imported."""
    model = nn.Module()
    model.head = nn.Linear(64, 4)
    storage.save(model, tmp_path / "m.safetensors", told(f"{OWN}.ConstantNet", IMAGE_KEYS))
    monkeypatch.delitem(sys.modules, OWN, raising=False)
    yield tmp_path / "m.safetensors", model
    sys.modules.pop(OWN, None)


def test_constants_of_a_users_module_are_real(own_file):
    path, saved = own_file
    images = torch.rand(3, 1, 8, 8)
    for _ in range(2):
        model = load_model(path, [f"{OWN}.ConstantNet"])
        assert torch.equal(model(images), saved.head(images.flatten(1)) * 2)
    module = sys.modules[OWN]
    assert module.SCALE.device.type == module.LATER["ones"].device.type == "cpu"


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_net.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = refusal(tmp_path / "run", told("broken_net.Net", IMAGE_KEYS), ["broken_net.Net"])
    assert "broken_net.Net: ZeroDivisionError: division by zero" in text


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("a\nb"), IndexError(), RecursionError("deep")])
def test_so_is_a_network_that_cannot_be_made(error, tmp_path, monkeypatch):
    def fails(**keywords):
        raise error

    monkeypatch.setitem(sys.modules, "own_fails", SimpleNamespace(Net=fails))
    assert type(error).__name__ in refusal(tmp_path, told("own_fails.Net", {}), ["own_fails.Net"])


# ---- hostile configurations -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Importing a library takes seconds of its own."""
    importlib.import_module("torchvision.models")


@pytest.mark.parametrize(
    ("name", "node", "keys"),
    [
        ("digits_cnn", {}, {"num_classes": 10**6}),
        ("torchvision", {"name": "resnet152"}, {}),
        ("torchvision", {"name": "regnet_y_32gf"}, {}),
        ("torchvision", {"name": "resnet18"}, {"image_size": 10**4, "num_classes": 10**6}),
        ("gpt", {"layers": 10**9, "width": 4, "heads": 1}, TEXT_KEYS),
        ("gpt", {"layers": 900, "width": 64, "heads": 1}, TEXT_KEYS),
        ("gpt", {"width": 64, "heads": 1}, {"vocabulary": 8, "length": 10**7}),
        ("gpt", {"width": 64, "heads": 1}, {"vocabulary": 10**9, "length": 4}),
    ],
)
def test_a_network_that_is_larger_than_what_is_stored(name, node, keys, tmp_path):
    text = refusal(tmp_path, told(f"diffq_exp.models.{name}", keys if name == "gpt" else IMAGE_KEYS | keys, **node))
    assert "is larger than what is stored" in text or "32 tensors are stored" in text


@pytest.mark.parametrize(
    "value", [None, "x", [], {}, [1], {"a": 1}, -1, 0, 0.5, 1e308, True, 2**63, 10**40, "a\nb"]
)
@pytest.mark.parametrize("key", ["num_classes", "in_channels", "image_size", "name"])
def test_arguments_of_any_kind(key, value, tmp_path):
    conf = told("diffq_exp.models.torchvision", dict(IMAGE_KEYS), name="alexnet")
    conf["model"]["node" if key == "name" else "keys"][key] = value
    refusal(tmp_path, conf)


def test_first_weights_are_warned_of_by_nobody(tmp_path, recwarn):
    """torch warns of those of a layer without outputs."""
    conf = stored_networks.config()
    conf["model"]["keys"]["num_classes"] = 0
    refusal(tmp_path, conf)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["x" * 300, "x" * 100_000, "ä", "\ud800", "a\0b", "a/../digits_cnn", "."])
def test_names_that_no_file_has(name, tmp_path):
    conf = stored_networks.config()
    conf["model"]["name"] = name
    assert "conf/ does not name" in refusal(tmp_path, conf)


def test_a_network_is_not_tried_again(tmp_path):
    """Its images may be of any size; a trial of this one would take minutes."""
    keys = {"num_classes": 4, "in_channels": 3, "image_size": 20_000}
    with rebuilding():
        assert is_rebuilding()
        models.mobilenet_v2(**keys)
        models.torchvision("squeezenet1_1", **keys)
    assert not is_rebuilding()


# ---- what a network may take ------------------------------------------------------------------------------------


SHAPES = {"weight": (64, 64), "bias": (64,)}


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(2000, 2000),
        lambda: torch.zeros(2**31),
        lambda: torch.ones(2**20, 1) * torch.ones(2**20),
        lambda: torch.arange(2**16)[:, None] + torch.arange(2**16),
        lambda: torch.ones(2**15).new_full((2**31,), 1),
        lambda: [torch.zeros(1) for _ in range(2100)],
        lambda: torch.ones(2**16).repeat(2**16),
    ],
)
def test_too_large(make):
    with pytest.raises(TooLarge), Allowance(SHAPES):
        make()
    nn.Linear(2000, 2000)  # outside of it anything goes


def test_what_networks_do_is_allowed():
    with Allowance(SHAPES) as allowed:
        linear, other = nn.Linear(64, 64), nn.Linear(64, 64)
        other.weight = linear.weight
        nn.LazyLinear(3)
        mask = torch.tril(torch.ones(1024, 1024, dtype=torch.bool))
        torch.zeros(2, out=torch.empty(2))
        mask.view(-1).expand(2**12, -1)
    assert allowed.bytes > 0.9 * allowance.FREE_BYTES


def test_real_networks_take_less_than_they_may():
    """A quarter of what they may, so that those of other libraries have room."""
    with rebuilding():
        model = models.torchvision("resnet18", num_classes=4, in_channels=1, image_size=64)
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        allowed = Allowance(shapes)
        entries, calls = allowed.entries, allowed.calls
        with allowed:
            models.torchvision("resnet18", num_classes=4, in_channels=1, image_size=64)
    assert allowed.entries > 0.7 * entries and allowed.calls > 0.7 * calls


# ---- other readers ----------------------------------------------------------------------------------------------


def tied(path, number):
    """A file whose largest tensor has so many more names."""
    data = storage.serialize(stored_networks.network(), stored_networks.config(), coding="packed")
    names = {"tied": {f"name{place}": "conv5.weight" for place in range(number)}}
    path.write_bytes(changed(data, lambda parts: parts.index.update(names)))
    return path


def test_ties_that_make_an_export_grow(tmp_path):
    entries = stored_networks.network().conv5.weight.numel()
    few, many = (tied(tmp_path / name, number) for name, number in (("few", 20), ("many", 300_000_000 // entries)))
    assert len(storage.read(few)[0].tied) == 20
    with pytest.raises(ValueError, match=r"entries of tied tensors in .* are not plausible"):
        storage.read(many)


def test_what_is_stored_with_many_ties_is_read(tmp_path):
    """The file has bytes enough for them."""
    model = nn.Module()
    model.first = nn.Embedding(2**11, 2**10)
    nn.init.zeros_(model.first.weight)
    for place in range(20):
        setattr(model, f"layer{place}", nn.Embedding(2**11, 2**10, _weight=model.first.weight))
        getattr(model, f"layer{place}").weight = model.first.weight
    storage.save(model, tmp_path / "m")
    assert len(storage.read(tmp_path / "m")[0].tied) == 20


@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("task", "node", "label_smoothing"), "x"), (("input", "classes"), None), (("input", "classes"), [[]]),
        (("input", "mean"), {}), (("input",), 3), (("batch_size",), "x"), (("batch_size",), -1),
        (("dataset",), None),
    ],
)  # fmt: skip
def test_evaluate_says_what_cannot_be_measured(way, value, tmp_path, capsys):
    conf = part = stored_networks.config()
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value
    path = stored_networks.store(tmp_path, conf)
    code = evaluate.main([str(path), "--device", "cpu"])
    said = capsys.readouterr().err
    if way == ("input",):  # it is what the data set says, then
        assert code == 0
        return
    assert code == 2 and said.startswith(f"error: {path}: ") and said.count("\n") == 1


def test_the_ledger_names_the_file(tmp_path):
    def change(parts):
        parts.index["tensors"][0][1] = [5]

    path = tmp_path / "m"
    path.write_bytes(changed(storage.serialize(stored_networks.network(), coding="packed"), change))
    with pytest.raises(ValueError, match=f"^{path}: tensor "):
        ledger(path)
