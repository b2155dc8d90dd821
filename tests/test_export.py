"""python -m diffq_exp.export writes what others can run, or says in one line what is wrong, with exit code 2."""

import builtins
import importlib.util
import json
import os
import re

import numpy as np
import onnx
import pytest
import torch
from helpers import storage_models
from helpers.storage_models import Mixed, Tied, assert_same, attached
from helpers.storage_models import network as scrambled
from helpers.stored_networks import config, network, store
from onnx import TensorProto
from safetensors import safe_open
from safetensors.torch import load_file

from diffq_exp import load_model, models, storage
from diffq_exp.export import main
from diffq_exp.onnx import graph as onnx_graph
from diffq_exp.onnx import trace
from diffq_exp.onnx.integers import session


def said(capsys, *words) -> dict[str, str]:
    """{name: text} of the lines of a command that does."""
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def refusal(capsys, *words) -> str:
    """The one line on standard error of a command that is refused."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    return err


def number(text: str) -> int:
    """The number of bytes at the start."""
    return int(text.split()[0].replace(",", ""))


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def by_script(monkeypatch):
    """The older exporter, which is much quicker, where the exporter is not the subject."""
    monkeypatch.setattr(trace, "EXPORTERS", {"TorchScript": trace._by_script})


@pytest.mark.parametrize("what", ["folder", pytest.param("file", marks=pytest.mark.long)])
def test_onnx(what, tmp_path, capsys):
    path = store(tmp_path / "run")
    lines = said(capsys, path if what == "file" else tmp_path / "run", "--to", "onnx")
    written = tmp_path / "run" / "model.onnx"
    assert lines["file"] == str(written) and number(lines["bytes"]) == written.stat().st_size
    assert files(tmp_path / "run") == {"model.safetensors", "model.onnx"}
    proto = onnx.load(written)
    images = torch.rand(5, 1, 8, 8)
    outputs = session(written.read_bytes()).run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = network()(images)
        assert np.abs(outputs - expected.numpy()).max() < 1e-4 and expected.std() > 1e-3
    entries = sum(tensor.levels.numel() for tensor in storage.read(path)[0].tensors.values())
    held = [one for one in proto.graph.initializer if one.data_type == TensorProto.UINT4 and len(one.dims) == 2]
    assert sum(np.prod(one.dims) for one in held) == entries  # 3 bits, in the narrowest type that holds them
    assert number(lines["integers"]) == sum(len(one.raw_data) for one in held)
    assert number(lines["integers"]) == pytest.approx(entries / 2, abs=5)
    assert number(lines["bit_packed"]) == pytest.approx(entries * 3 / 8, abs=5)
    assert number(lines["widening"]) == number(lines["integers"]) - number(lines["bit_packed"])
    assert lines["opset"].split()[0] == str(proto.opset_import[0].version)
    assert 0 <= float(lines["difference"].split()[0]) <= 1e-4


@pytest.mark.usefixtures("by_script")
def test_onnx_says_how_the_input_is_made(tmp_path, capsys):
    said(capsys, store(tmp_path), "--to", "onnx")
    notes = {note.key: json.loads(note.value) for note in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert notes == {f"input.{key}": value for key, value in config()["input"].items()}
    assert notes["input.shape"] == [1, 8, 8]


@pytest.mark.usefixtures("by_script")
def test_onnx_of_learned_widths(tmp_path, capsys):
    model = scrambled(lambda: models.digits_cnn(4, 1, 8))
    attached("diffq 8, tails", model)
    store(tmp_path, model=model)
    lines = said(capsys, tmp_path, "--to", "onnx", "--opset", "21", "--out", tmp_path / "small.onnx")
    named = {name: number(size) for name, size in re.findall(r"(uint\d+) ([\d,]+) bytes", lines["integers"])}
    assert set(named) == {"uint4", "uint8", "uint16"} and all(named.values())
    table = number(lines["integers"].rpartition("groups: ")[2])
    assert number(lines["integers"]) == sum(named.values()) + table and table > 0
    assert number(lines["widening"]) == sum(named.values()) - number(lines["bit_packed"]) > 0
    assert lines["opset"].startswith("21 ") and files(tmp_path) == {"model.safetensors", "small.onnx"}


@pytest.mark.usefixtures("by_script")
def test_onnx_of_a_class_of_ones_own_that_leaves_a_part_unused(tmp_path, capsys):
    class_name = "helpers.storage_models.UserNet"
    conf = config()
    conf["model"]["node"] = {"_target_": class_name}
    model = storage_models.UserNet(4, 1, 8).eval()
    store(tmp_path, conf, model)
    assert f"--allow {class_name}" in refusal(capsys, tmp_path, "--to", "onnx")
    assert files(tmp_path) == {"model.safetensors"}
    lines = said(capsys, tmp_path, "--to", "onnx", "--allow", class_name)
    assert number(lines["integers"]) == 0 and "none" in lines["integers"]  # it has no quantizer


@pytest.mark.usefixtures("by_script")
def test_a_difference_is_an_error_and_leaves_what_was_there(tmp_path, capsys, monkeypatch):
    store(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"older")
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    assert "differ by" in refusal(capsys, tmp_path, "--to", "onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"older"
    assert files(tmp_path) == {"model.safetensors", "model.onnx"}


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(name, tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *rest: None if one == name else real(one, *rest))
    assert f"needs {name}: pip install -e " in refusal(capsys, store(tmp_path), "--to", "onnx")
    assert files(tmp_path) == {"model.safetensors"}
    said(capsys, tmp_path, "--to", "state_dict")  # which needs none of them


# ---- state_dict -----------------------------------------------------------------------------------------------


def test_state_dict(tmp_path, capsys):
    lines = said(capsys, store(tmp_path), "--to", "state_dict")
    path = tmp_path / "state_dict.safetensors"
    assert lines["file"] == str(path) and number(lines["bytes"]) == path.stat().st_size
    fresh = models.digits_cnn(num_classes=4, in_channels=1, image_size=8).eval()
    fresh.load_state_dict(load_file(path))
    assert_same(fresh.state_dict(), load_model(tmp_path).state_dict())
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(fresh(images), network()(images))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("form", ["onnx", "state_dict"])
def test_what_is_written_is_for_all_that_the_umask_lets_read(form, tmp_path, capsys):
    out = tmp_path / "there.safetensors"
    out.touch(0o600)
    before = os.umask(0o027)
    try:
        said(capsys, store(tmp_path), "--to", form, "--out", out)
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device without room")
def test_a_disk_without_room(tmp_path, capsys, monkeypatch):
    path = store(tmp_path)
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda name, *mode: real("/dev/full" if mode else name, *mode))
    assert "No space left" in refusal(capsys, path, "--to", "state_dict")
    assert files(tmp_path) == {"model.safetensors"}


@pytest.mark.parametrize("build", [Tied, Mixed])
@pytest.mark.parametrize("way", ["diffq 8, tails", "diffq float16", "lsq 3", "none", "none, small"])
def test_state_dict_of_tied_weights_and_buffers_of_every_type(build, way, tmp_path, capsys):
    """Also without a configuration, as `storage.save(quantizer, path)` writes it: no network is built."""
    options = {"float": "int8", "fold": True} if "small" in way else {}
    source = attached(way.removesuffix(", small"), scrambled(build))
    storage.save(source, tmp_path / "m", **options)
    said(capsys, tmp_path / "m", "--to", "state_dict", "--out", tmp_path / "weights")
    values = load_file(tmp_path / "weights")
    assert_same(values, storage.read(tmp_path / "m")[0].values())
    fresh, same = build().eval(), build().eval()
    fresh.load_state_dict(values)
    storage.load(tmp_path / "m", same)
    assert_same(fresh.state_dict(), same.state_dict())


# ---- what is wrong --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("by_script")
@pytest.mark.parametrize("form", ["onnx", "state_dict"])
def test_wrong_files(form, tmp_path, capsys):
    path = store(tmp_path / "run")
    whole = path.read_bytes()
    assert "nope" in refusal(capsys, tmp_path / "nope", "--to", form)
    assert "no model.safetensors" in refusal(capsys, tmp_path, "--to", form)
    assert "itself" in refusal(capsys, path, "--to", form, "--out", path)
    assert "absent" in refusal(capsys, path, "--to", form, "--out", tmp_path / "absent" / "file")
    (tmp_path / "result.json").write_text("{}")
    assert "exists" in refusal(capsys, path, "--to", form, "--out", tmp_path / "result.json")
    assert (tmp_path / "result.json").read_text() == "{}" and path.read_bytes() == whole
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refusal(capsys, path, "--to", form)
    assert files(tmp_path / "run") == {"model.safetensors"}


def test_what_does_not_go_together(tmp_path, capsys):
    path = store(tmp_path)
    assert "--opset" in refusal(capsys, path, "--to", "state_dict", "--opset", 21)
    assert "opset 2000" in refusal(capsys, path, "--to", "onnx", "--opset", 2000)
    for key in ("input", "model"):
        conf = config()
        del conf[key]
        store(tmp_path, conf)
        assert key in refusal(capsys, path, "--to", "onnx")
    conf["input"]["shape"] = "wide"
    conf["model"] = config()["model"]
    store(tmp_path, conf)
    assert "shape of its input" in refusal(capsys, path, "--to", "onnx")
    conf["input"]["shape"] = [3, 8, 8]
    store(tmp_path, conf)
    assert "3, 8, 8" in refusal(capsys, path, "--to", "onnx")
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--to", "tflite"])


def test_a_folder_as_target(tmp_path, capsys):
    (tmp_path / "there").mkdir()
    said(capsys, store(tmp_path), "--to", "state_dict", "--out", tmp_path / "there")
    assert files(tmp_path / "there") == {"state_dict.safetensors"}
