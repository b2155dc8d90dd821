"""python -m diffq_exp.evaluate says again what a run said, or what is wrong, in one line and exit code 2."""

import re

import pytest
import torch
from helpers import storage_models
from helpers.stored_networks import config, made_data, network, store
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from diffq_exp import load_model, models, storage
from diffq_exp.common.files import read_json, write_json
from diffq_exp.evaluate import main
from diffq_exp.quant import RateQuantizer
from diffq_exp.runs.build import build_data
from diffq_exp.tasks.classification import Classification
from diffq_exp.training.measure import evaluate


def refusal(capsys, *words) -> str:
    """The one line on standard error of a command that is refused."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    return err


def said(capsys, *words) -> dict[str, float]:
    """{name: number} of a command that does."""
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()}


@pytest.mark.parametrize("what", ["folder", "file"])
def test_it_says_accuracy_size_and_bits(what, tmp_path, capsys):
    path = store(tmp_path / "run")
    numbers = said(capsys, path if what == "file" else tmp_path / "run", "--device", "cpu")
    expected = evaluate(network(), made_data().test, Classification())
    assert numbers["test.accuracy"] == pytest.approx(expected["accuracy"], rel=1e-5)
    assert numbers["test.loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert 0 < expected["accuracy"] < 1  # that a constant would not do
    assert numbers["size_mb.file"] == pytest.approx(path.stat().st_size / 2**20, rel=1e-5)
    bits = {name: value for name, value in numbers.items() if name.startswith("stored_bits.")}
    assert len(bits) > 5 and set(bits.values()) == {3.0}


def test_a_network_that_is_stored_small(tmp_path, capsys):
    """Its norms are folded, and stand in the ledger and among the bits."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    model = models.digits_cnn(num_classes=4, in_channels=1, image_size=8)
    with torch.no_grad():
        model(torch.rand(16, 1, 8, 8))
    RateQuantizer(model.eval(), step=0.1)
    storage.save(model, path, config(), float="int8", fold=True)
    numbers = said(capsys, path, "--device", "cpu")
    expected = evaluate(load_model(path), made_data().test, Classification())
    assert numbers["test.loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert numbers["test.loss"] == pytest.approx(
        evaluate(model, made_data().test, Classification())["loss"], rel=0.02
    )
    assert numbers["stored_bits.norm5.weight"] == 8
    assert main([str(path), "--ledger"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.split()}
    assert rows["norm5.weight"][0] != "." and set(rows["norm5.running_mean"]) == {"."}


def test_what_a_kb_of_each_tensor_is_worth(tmp_path, capsys):
    conf = config()
    conf["dataset"]["node"] |= {"val_fraction": 0.5, "train_images": 64}
    path = store(tmp_path / "run", conf)
    assert main([str(path), "--sensitivity", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "bits" and lines[0].endswith("loss per kB")
    assert not (tmp_path / "run" / "sensitivity.json").exists()
    assert main([str(tmp_path / "run"), "--sensitivity", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    kept = read_json(tmp_path / "run" / "sensitivity.json")
    shown = {line.split()[0]: line.split()[-1] for line in lines[1:]}
    assert len(kept) > 3 and {name: f"{worth:+.3g}" for name, worth in kept.items()} == shown


def test_worth_is_measured_on_a_validation_part_of_quantized_tensors(tmp_path, capsys):
    store(tmp_path)
    assert "--sensitivity needs a validation part" in refusal(capsys, tmp_path, "--sensitivity")
    conf = config()
    conf["dataset"]["node"]["val_fraction"] = 0.5
    plain = models.digits_cnn(num_classes=4, in_channels=1, image_size=8)
    storage.save(plain, tmp_path / "float.safetensors", conf)
    said = refusal(capsys, tmp_path / "float.safetensors", "--sensitivity")
    assert said.endswith("--sensitivity: no tensor is quantized\n")


def test_the_models_own_class_has_to_be_allowed(tmp_path, capsys):
    conf = config()
    conf["model"]["node"] = {"_target_": "helpers.storage_models.UserNet"}
    model = storage_models.UserNet(4, 1, 8).eval()
    store(tmp_path, conf, model)
    assert "--allow helpers.storage_models.UserNet" in refusal(capsys, tmp_path)
    numbers = said(capsys, tmp_path, "--allow", "helpers.storage_models.UserNet", "--device", "cpu")
    expected = evaluate(model, made_data().test, Classification())
    assert numbers["test.loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_wrong_files(tmp_path, capsys):
    path = store(tmp_path / "run")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert str(path) in refusal(capsys, path)
    assert str(path) in refusal(capsys, tmp_path / "run")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert str(path) in refusal(capsys, path)
    path.unlink()
    write_json(path.with_name("result.json"), {"status": "diverged"})
    assert "diverged" in refusal(capsys, tmp_path / "run")
    assert "nope" in refusal(capsys, tmp_path / "nope")
    save_file({"weight": torch.ones(3)}, tmp_path / "foreign.safetensors")
    assert "foreign.safetensors" in refusal(capsys, tmp_path / "foreign.safetensors")
    (tmp_path / "text").write_text("text")
    assert "text" in refusal(capsys, tmp_path / "text")


@pytest.mark.parametrize("lost", ["model", "dataset", "task", "batch_size"])
@pytest.mark.parametrize("words", [[], ["--root", "/"]])
def test_a_config_that_lacks_a_part(lost, words, tmp_path, capsys):
    conf = config()
    del conf[lost]
    path = store(tmp_path, conf)
    assert str(path) in refusal(capsys, path, *words, "--device", "cpu")


def test_a_device_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if torch.cuda.device_count():
        pytest.skip("this machine has one")
    store(tmp_path)
    assert "cuda" in refusal(capsys, tmp_path, "--device", "cuda")


@pytest.mark.parametrize("words", [[], ["a", "--device", "tpu"], ["a", "--nosuch"]])
def test_wrong_words(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "--help lists what is allowed" in capsys.readouterr().err


def images_in(root) -> None:
    """Two parts of two classes of grey images, light ones and dark ones."""
    for part, count in (("train", 3), ("test", 4)):
        for name, level in (("dark", 40), ("light", 200)):
            (root / part / name).mkdir(parents=True)
            for at in range(count):
                Image.new("L", (8, 8), level + at).save(root / part / name / f"{at}.png")


def test_images_that_lie_elsewhere_now(tmp_path, capsys):
    """--root says where; without it the old place is named."""
    images_in(tmp_path / "now")
    node = {
        "_target_": "diffq_exp.data.image_folder", "root": str(tmp_path / "now"), "image_size": None, "channels": 1,
        "mean": [0.5], "std": [0.25], "max_memory_mb": 64, "cache_dir": None, "val_fraction": 0.0, "seed": 0,
        "crop": 0, "min_scale": 0.1, "flip": False,
    }  # fmt: skip
    cfg = OmegaConf.create({"dataset": node, "batch_size": 4, "num_workers": 0})
    data = build_data(cfg, torch.device("cpu"))
    conf = config()
    conf["dataset"] = {"name": "image_folder", "node": {**node, "root": str(tmp_path / "then")}}
    conf["input"] = data.input
    run = tmp_path / "run"
    store(run, conf)
    assert str(tmp_path / "then") in refusal(capsys, run, "--device", "cpu")
    numbers = said(capsys, run, "--device", "cpu", "--root", tmp_path / "now")
    expected = evaluate(network(), data.test, Classification())
    assert numbers["test.loss"] == pytest.approx(expected["loss"], rel=1e-5)
    (tmp_path / "now" / "test" / "dark" / "0.png").write_bytes(b"no image")
    told = refusal(capsys, run, "--device", "cpu", "--root", tmp_path / "now")
    assert re.search(r"dark.0\.png", told)


def test_its_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Measures a stored model again, from the file alone" in text and "--sensitivity" in text
