"""A stored network comes back from its file alone, and a stranger's file cannot choose what code runs."""

import os
from pathlib import Path

import pytest
import torch
from helpers import storage_models
from helpers.stored_networks import config, network, store
from safetensors.torch import save_file

import diffq_exp
from diffq_exp import storage
from diffq_exp.command.schema import conf_dir
from diffq_exp.common.files import write_json
from diffq_exp.models import digits_cnn
from diffq_exp.quant import UniformQuantizer, quantizer_of
from diffq_exp.runs.loading import load_model, load_weights
from diffq_exp.runs.rebuild import build_stored
from diffq_exp.training.checkpoint import save_checkpoint

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def no_code_of_a_strangers(monkeypatch):
    """What a hostile file would call; it must not come to that."""

    def ran(*args, **keywords):
        raise AssertionError("a stranger's code ran")

    monkeypatch.setattr(os, "system", ran)
    monkeypatch.setattr(os, "popen", ran)


def refusal(path, conf, allow=()) -> str:
    """What load_model says to a file with this config: one line that names the file."""
    store(path, conf)
    with pytest.raises(ValueError) as caught:
        load_model(path, allow)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


# ---- what a run left ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["folder", *(pytest.param(way, marks=pytest.mark.long) for way in ("file", "text"))]
)
def test_the_stored_network_comes_back(what, tmp_path):
    path = store(tmp_path / "run")
    source = {"folder": tmp_path / "run", "file": path, "text": str(path)}[what]
    model = diffq_exp.load_model(source)
    assert not model.training and quantizer_of(model) is None
    assert torch.equal(model(IMAGES), network()(IMAGES))
    values = storage.read(path)[0].values()
    assert set(model.state_dict()) == set(values)
    for name, value in model.state_dict().items():
        assert torch.equal(value, values[name]) and value.device.type == "cpu"


def test_it_says_what_it_is_and_what_goes_in(tmp_path):
    _, conf = storage.read(store(tmp_path))
    assert conf == config()
    assert conf["model"]["name"] == "digits_cnn" and conf["dataset"]["name"] == "synthetic"
    assert conf["input"]["shape"] == [1, 8, 8] and len(conf["input"]["classes"]) == 4
    assert len(conf["input"]["mean"]) == len(conf["input"]["std"]) == 1


def test_a_run_without_a_stored_model(tmp_path):
    write_json(tmp_path / "result.json", {"status": "interrupted"})
    with pytest.raises(ValueError, match="interrupted") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="nope"):
        load_model(tmp_path / "nope")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(tmp_path)


def test_a_file_that_is_cut_short(tmp_path):
    path = store(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(path)


@pytest.mark.parametrize("conf", [{}, {"model": {}}, {"model": None}, {"model": "digits_cnn"}, {"model": [1]}])
def test_a_file_without_a_config_of_a_network(conf, tmp_path):
    assert "model" in refusal(tmp_path / "run", conf)


@pytest.mark.parametrize(
    "keys",
    [
        {"num_classes": 5},  # other shapes than those of the file
        {"num_classes": -1},
        {"num_classes": 10**18},
        {"num_classes": "4"},
        {"num_classes": None},
        {"nosuch": 1},
        {"_target_": "os.system"},
    ],
)
def test_arguments_that_make_no_such_network(keys, tmp_path):
    conf = config()
    conf["model"]["keys"] |= keys
    refusal(tmp_path, conf)


# ---- what may be built ----------------------------------------------------------------------------------------


def told_to_build(target: str, name: str = "digits_cnn", **arguments):
    conf = config()
    conf["model"] = {"name": name, "node": {"_target_": target, **arguments}, "keys": {}}
    return conf


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.nn.Linear", "diffq_exp.models.resnet20"])
def test_a_target_that_conf_does_not_name(target, tmp_path):
    text = refusal(tmp_path, told_to_build(target, command="true"))
    assert repr(target) in text and f"--allow {target}" in text


def user_file(path: Path) -> dict:
    conf = config()
    conf["model"]["name"] = "digits_cnn"
    conf["model"]["node"] = {"_target_": "helpers.storage_models.UserNet", "width": 6}
    model = storage_models.UserNet(4, 1, 8, width=6)
    UniformQuantizer(model, bits=4, min_size=0)
    store(path, conf, model.eval())
    return conf


def test_a_class_of_the_users_own(tmp_path):
    """Refused by name, with the way to allow it; built when allowed, and by its full name only."""
    user_file(tmp_path)
    for allow in ((), ["UserNet"], ["helpers.storage_models"], ["helpers.storage_models.Net"]):
        with pytest.raises(ValueError, match=r"--allow helpers.storage_models\.UserNet"):
            load_model(tmp_path, allow)
    model = load_model(tmp_path, ["helpers.storage_models.UserNet"])
    assert isinstance(model, storage_models.UserNet) and model.hidden.out_features == 6


def test_allowed_but_no_network(tmp_path):
    text = refusal(tmp_path, told_to_build("builtins.dict"), ["builtins.dict"])
    assert "dict" in text


@pytest.mark.parametrize(
    "target", ["nosuch.module.Net", "helpers.storage_models.Nosuch", "plain", "", ".", "a..b", None, 3]
)
def test_allowed_but_not_there(target, tmp_path):
    refusal(tmp_path, told_to_build(target), [target])


@pytest.mark.parametrize(
    "arguments",
    [
        {"norm": {"_target_": "os.system", "command": "true"}},
        {"blocks": [1, {"deep": [{"_target_": "os.system"}]}]},
    ],
)
def test_a_target_inside_the_arguments(arguments, tmp_path):
    conf = told_to_build("diffq_exp.models.digits_cnn", **arguments)
    assert "--allow os.system" in refusal(tmp_path, conf)
    conf["model"]["node"]["_target_"] = "helpers.storage_models.UserNet"
    assert "--allow os.system" in refusal(tmp_path, conf, ["helpers.storage_models.UserNet"])


def test_a_name_that_leads_out_of_conf(tmp_path):
    """To a YAML of the stranger's own that names his target."""
    (tmp_path / "evil.yaml").write_text("_target_: os.system\n")
    inside = os.path.relpath(tmp_path / "evil", conf_dir() / "model")
    for name in (inside, str(tmp_path / "evil"), "../model/digits_cnn", "evil", "", None, 3, ["digits_cnn"]):
        assert "os.system" in refusal(tmp_path / "run", told_to_build("os.system", name, command="true"))


def test_a_name_that_leads_back_into_conf(tmp_path):
    """A path is no name, even where it ends at the right file."""
    for name in ("../model/digits_cnn", "./digits_cnn", "digits_cnn.yaml/../digits_cnn"):
        conf = config()
        conf["model"]["name"] = name
        refusal(tmp_path, conf)


def test_a_target_of_another_group(tmp_path):
    text = refusal(tmp_path, told_to_build("diffq_exp.data.synthetic", "synthetic"))
    assert "diffq_exp.data.synthetic" in text


@pytest.mark.parametrize("group", ["dataset", "task"])
def test_data_and_task_are_held_to_the_same(group):
    conf = config()
    conf[group]["node"]["_target_"] = "os.system"
    with pytest.raises(ValueError, match=r"--allow os\.system"):
        build_stored(conf, group, ())
    conf = config()
    conf[group]["node"]["extra"] = {"_target_": "os.system"}
    with pytest.raises(ValueError, match=r"argument names 'os\.system'"):
        build_stored(conf, group, ())


# ---- pretrained networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["node", "keys"])
@pytest.mark.parametrize("group", ["torchvision", "timm"])
def test_nothing_is_fetched(group, where, monkeypatch):
    """The weights come from the file, whatever it asks for and wherever it asks."""
    asked = []
    monkeypatch.setattr(diffq_exp.models, group, lambda **keywords: asked.append(keywords))
    conf = {"name": group, "node": {"_target_": f"diffq_exp.models.{group}", "name": "resnet18"}, "keys": {}}
    conf[where]["pretrained"] = True
    try:
        build_stored({"model": conf}, "model", ())
    except ValueError:
        assert asked == []  # to refuse it is as good
    else:
        assert [keywords["pretrained"] for keywords in asked] == [False]


# ---- weights to start from ------------------------------------------------------------------------------------


def save(path, state) -> None:
    """A checkpoint of a run, of which only the network's state matters here."""
    others = dict.fromkeys(("optimizers", "place", "rng", "run_id", "scaler", "sums"))
    save_checkpoint(path, {"model": state, **others})


def fresh(classes: int = 4):
    torch.manual_seed(9)
    return digits_cnn(num_classes=classes, in_channels=1, image_size=8)


def test_start_from_a_stored_model(tmp_path):
    path = store(tmp_path)
    for source in (tmp_path, path):
        model = fresh().eval()
        load_weights(model, source)
        assert torch.equal(model(IMAGES), network()(IMAGES))


RECORD = {"status": "finished", "signature": "0123456789"}


def test_start_from_the_float_weights_of_a_run(tmp_path):
    """A run's folder has both: its last float weights are the better start."""
    store(tmp_path)
    write_json(tmp_path / "result.json", RECORD)
    trained = fresh()
    with torch.no_grad():
        for param in trained.parameters():
            param.mul_(2)
    state = dict(trained.state_dict())
    first = next(iter(state))
    state[f"{first}_diffq"] = torch.zeros(4)  # what a quantizer learned is left behind
    save(tmp_path / "checkpoint.pt", state)
    for source in (tmp_path, tmp_path / "checkpoint.pt"):
        model = fresh()
        load_weights(model, source)
        for name, value in model.state_dict().items():
            assert torch.equal(value, trained.state_dict()[name])


@pytest.mark.parametrize("record", [None, {"status": "ok", "test": 0.93}, {**RECORD, "signature": ""}])
def test_a_checkpoint_counts_where_a_run_has_left_it(record, tmp_path):
    """Of another folder the signature hashes what `network_files` finds: that is read, and nothing else."""
    other = {name: torch.zeros_like(value) for name, value in fresh().state_dict().items()}
    save(tmp_path / "checkpoint.pt", other)
    if record is not None:
        write_json(tmp_path / "result.json", record)
    trained = fresh(4)
    for param in trained.parameters():
        param.data.mul_(2)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    for states in (trained.state_dict(), other):
        model = fresh()
        load_weights(model, tmp_path)
        assert all(torch.equal(value, states[name]) for name, value in model.state_dict().items())
        index = {"weight_map": dict.fromkeys(other, "part.safetensors")}  # comes before the file, in both
        write_json(tmp_path / "model.safetensors.index.json", index)
        save_file(other, tmp_path / "part.safetensors")
        store(tmp_path)


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    store(tmp_path)
    small = fresh(3)
    save(tmp_path / "other.pt", small.state_dict())
    lacking = dict(list(fresh().state_dict().items())[:-1])
    save(tmp_path / "lacking.pt", lacking)
    save(tmp_path / "more.pt", {**fresh().state_dict(), "extra.weight": torch.ones(1)})
    save_checkpoint(tmp_path / "empty.pt", {})
    (tmp_path / "text.pt").write_text("text")
    cases = {"": small, "other.pt": fresh(), "lacking.pt": fresh(), "more.pt": fresh(), "empty.pt": fresh()}
    for name, model in {**cases, "text.pt": fresh()}.items():
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(ValueError) as caught:
            load_weights(model, tmp_path / name, strict=True)
        assert str(tmp_path / name) in str(caught.value)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), (name, key)
