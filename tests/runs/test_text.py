"""Runs of language modelling: headline, record, resume, and the networks that they leave."""

import math

import pytest
import torch
from helpers.run_configs import do, timeless

from diffq_exp.evaluate import main as evaluate_main
from diffq_exp.export import main as export_main
from diffq_exp.runs.loading import load_model
from diffq_exp.storage import read

GPT = ("model=gpt", "model.layers=1", "model.width=16", "model.heads=2")


def words(folder, *more):
    file = folder / "text.txt"
    if not file.exists():
        file.write_bytes(b"the quick brown fox jumps over the lazy dog. " * 40)
    return (
        "dataset=text", f"dataset.path={file}", "dataset.length=16", "task=language_modelling", "batch_size=8",
        "epochs=3", "lr=0.01", "min_size=0.0001", "penalty=0.1", "device=cpu", "threads=1", "tracking=none", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    outcome = do(*words(root, *GPT), root=root)
    assert outcome.code == 0, outcome.text
    return outcome


def test_the_record_has_bits_per_byte_and_the_float32_network_beside_it(run):
    result = run.result
    headline = result["headline"]
    assert (headline["name"], headline["unit"], headline["higher_is_better"]) == ("bits_per_byte", "bits", False)
    assert headline["chance"] == 8
    test = result["test"]
    assert set(test) == {"loss", "bits_per_byte", "perplexity", "float32_bits_per_byte"}
    assert test["bits_per_byte"] == pytest.approx(test["loss"] / math.log(2))
    assert test["perplexity"] == pytest.approx(math.exp(test["loss"]))
    assert test["bits_per_byte"] < 5 and test["float32_bits_per_byte"] < 5
    assert result["data"]["tokens"] == {"train": 1530, "val": 180, "test": 90}
    assert (result["data"]["train"], result["data"]["unit"]) == (94, "windows")


def test_rows_and_lines_count_windows_and_show_bits(run):
    rows = run.rows
    assert [set(row["val"]) for row in rows] == [{"loss", "bits_per_byte", "perplexity"}] * 3
    assert rows[-1]["val"]["bits_per_byte"] < rows[0]["val"]["bits_per_byte"]
    assert all(row["examples_per_second"] > 0 for row in rows)
    assert "94 train / 12 val / 6 test windows" in run.text and "bits per byte" in run.text
    assert "accuracy" not in run.text and "windows/s" in run.text


def test_a_stopped_run_ends_with_the_same_bits(run, tmp_path, monkeypatch):
    from diffq_exp.training.stopping import StopFlag
    from diffq_exp.training.trainer import Trainer

    step, seen = Trainer._step, []

    def stopping(self, *args):
        step(self, *args)
        seen.append(self)
        if len(seen) == 17:  # within the second epoch
            raise KeyboardInterrupt

    root = run.folder.parents[1]
    same = words(root, *GPT)
    monkeypatch.setattr(Trainer, "_step", stopping)
    monkeypatch.setattr(StopFlag, "__enter__", lambda self: self)
    assert do(*same, root=tmp_path).code == 130
    monkeypatch.undo()
    again = do(*same, root=tmp_path)
    assert again.code == 0 and timeless(again.rows) == timeless(run.rows)
    assert again.result["test"] == run.result["test"]


@pytest.mark.long
def test_the_stored_network_is_loaded_measured_and_exported(run, tmp_path, capsys):
    model = load_model(run.folder)
    _, config = read(run.folder / "model.safetensors")
    assert config["input"] == {"shape": [16], "dtype": "int64", "vocabulary": 256}
    assert model(torch.zeros(2, 16, dtype=torch.int64)).shape == (2, 16, 256)
    assert evaluate_main([str(run.folder), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    numbers = dict(line.split()[:2] for line in said.splitlines() if line.startswith("test."))
    assert float(numbers["test.bits_per_byte"]) == pytest.approx(run.result["test"]["bits_per_byte"], rel=1e-4)
    assert export_main([str(run.folder), "--to", "onnx", "--out", str(tmp_path / "m.onnx")]) == 0
    assert "difference" in capsys.readouterr().out


def test_a_text_that_moved_is_found_by_root(run, tmp_path, capsys):
    root = run.folder.parents[1]
    moved = tmp_path / "moved.txt"
    (root / "text.txt").rename(moved)
    try:
        assert evaluate_main([str(run.folder), "--device", "cpu"]) == 2
        assert "cannot be read" in capsys.readouterr().err
        assert evaluate_main([str(run.folder), "--device", "cpu", "--root", str(moved)]) == 0
        assert "test.bits_per_byte" in capsys.readouterr().out
    finally:
        moved.rename(root / "text.txt")


def test_a_text_too_short_is_one_line(tmp_path):
    outcome = do(*words(tmp_path, *GPT, "dataset.length=1000"), root=tmp_path)
    assert outcome.code == 2
    assert outcome.lines[-1].endswith("train: 1,530 tokens are too few, 2,000 are needed at this length")


def test_an_image_model_on_a_text_is_one_line(tmp_path):
    outcome = do(*words(tmp_path, "model=digits_cnn"), root=tmp_path)
    assert outcome.code == 2 and "num_classes" in outcome.lines[-1]


# ---- transformers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["kind", "folder"])
def test_a_language_model_of_transformers_trains_and_is_loaded_again(source, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = "{n_layer: 1, n_head: 2, n_embd: 16, resid_pdrop: 0, embd_pdrop: 0, attn_pdrop: 0}"
    model = ["model=transformers", "model.name=gpt2", f"model.config={config}"]
    if source == "folder":
        small = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=300, n_positions=32)
        transformers.GPT2LMHeadModel(small).save_pretrained(tmp_path / "hub")
        model = ["model=transformers", f"model.name={tmp_path / 'hub'}", "model.pretrained=true"]
    outcome = do(*words(tmp_path, *model, "epochs=1"), root=tmp_path)
    assert outcome.code == 0, outcome.text
    if source == "folder":
        (tmp_path / "hub").rename(tmp_path / "gone")  # the stored network needs nothing of it
    loaded = load_model(outcome.folder)
    assert loaded.network.lm_head.weight is loaded.network.transformer.wte.weight
    assert loaded(torch.zeros(1, 16, dtype=torch.int64)).shape == (1, 16, 256)
    assert outcome.result["test"]["bits_per_byte"] < 8.5


def test_an_image_classifier_of_transformers_trains_and_is_loaded_again(tmp_path):
    pytest.importorskip("transformers")
    config = "{hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32, patch_size: 4}"
    outcome = do(
        "dataset=synthetic_small", "dataset.train_images=120", "dataset.test_images=20", "model=transformers",
        "model.name=vit", f"model.config={config}", "epochs=1", "batch_size=20", "device=cpu", "threads=1",
        "tracking=none", "min_size=0.0001", root=tmp_path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.text
    assert load_model(outcome.folder)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
