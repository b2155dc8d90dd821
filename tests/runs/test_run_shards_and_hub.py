"""Runs on tar shards and on sets of the datasets library, by the configurations that are shipped."""

import signal

import pytest
import torch
from helpers.run_configs import do
from helpers.run_folders import payloads
from helpers.run_signals import interrupt_at

from diffq_exp.evaluate import main

pytestmark = pytest.mark.usefixtures("same_commit")

SMALL = (
    "batch_size=4", "epochs=2", "device=cpu", "threads=1", "tracking=none", "storage.coding=packed",
    "num_workers=0", "quantizer=qat",
)  # fmt: skip


def test_a_run_on_shards_is_stopped_and_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    pytest.importorskip("webdataset", reason="no webdataset: pip install webdataset")
    from data.test_webdataset import write

    for shard in range(3):
        write(tmp_path / f"train-{shard}.tar", range(4 * shard, 4 * shard + 4))
    write(tmp_path / "test.tar", range(100, 104))
    words = (
        *SMALL, "dataset=webdataset", f"dataset.train='{tmp_path}/train-{{0..2}}.tar'", "dataset.image_size=8",
        f"dataset.test={tmp_path}/test.tar", "dataset.num_classes=2", "val_fraction=0.3",
    )  # fmt: skip
    whole = do(*words, root=tmp_path / "whole")
    assert whole.code == 0, whole.text
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3, signal.SIGINT)
        assert do(*words, root=tmp_path / "parts").result["status"] == "interrupted"
    assert payloads(do(*words, root=tmp_path / "parts").folder) == payloads(whole.folder)
    assert whole.result["data"]["val"] == 4 and set(whole.result["data"]["digest"]) == {"train", "test"}


def test_a_run_on_a_set_of_the_library_and_its_evaluation(tmp_path, capsys):
    library = pytest.importorskip("datasets", reason="no datasets: pip install datasets")
    from data.test_huggingface import rows

    parts = {"train": rows(range(16), size=(8, 8)), "test": rows(range(4), size=(8, 8))}
    library.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    outcome = do(*SMALL, "dataset=huggingface", f"dataset.name={tmp_path}/set", "val_fraction=0.25", root=tmp_path)
    assert outcome.code == 0, outcome.text
    capsys.readouterr()
    assert main([str(outcome.folder), "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert float(out.split()[1]) == pytest.approx(outcome.result["test"]["loss"], rel=1e-4) and err == ""


def test_a_language_model_on_a_text_of_the_library(tmp_path):
    library = pytest.importorskip("datasets", reason="no datasets: pip install datasets")
    parts = {"train": ["some words and more"] * 40, "validation": ["less"] * 9, "test": ["some words"] * 9}
    found = library.DatasetDict({part: library.Dataset.from_dict({"text": rows}) for part, rows in parts.items()})
    found.save_to_disk(str(tmp_path / "set"))
    outcome = do(
        *SMALL, "dataset=huggingface_text", f"dataset.name={tmp_path}/set", "dataset.length=16", "model=gpt",
        "model.width=16", "model.layers=1", "model.heads=2", "task=language_modelling", root=tmp_path,
    )  # fmt: skip
    assert outcome.code == 0 and outcome.result["test"]["bits_per_byte"] > 0, outcome.text
    assert torch.load(outcome.folder / "checkpoint.pt", weights_only=True)
