"""The display of a run: lines of epochs and the table at the end, in the words of the headline."""

import logging
from pathlib import Path

from helpers.made_runs import BITS_PER_BYTE, TEXT, made_run

from diffq_exp.results.headline import Headline
from diffq_exp.results.records import RunRecord, read_record
from diffq_exp.runs.display import epoch_line, show_result

ROW = {
    "epoch": 3,
    "train": {"loss": 1.5, "accuracy": 0.9, "bits_per_byte": 2.6},
    "val": {"loss": 1.6, "accuracy": 0.8, "bits_per_byte": 2.7},
    "size_mb": {"true": 0.5},
    "bits": {"mean": 3.5},
    "examples_per_second": 1234.5,
}


def test_an_epoch_is_a_line_in_the_headline_of_the_task():
    assert epoch_line(ROW, 20, Headline(), "images") == (
        "epoch  3/20  loss 1.5000  train 0.9000  val 0.8000  formula 0.5000 MB  3.50 bits  1,234 images/s"
    )
    line = epoch_line({**ROW, "val": {"loss": 1.6}}, 3, BITS_PER_BYTE, "windows")
    assert "train 2.6000  val nan" in line and line.endswith("1,234 windows/s")


def shown(folder, caplog):
    caplog.clear()
    with caplog.at_level(logging.INFO, "diffq_exp"):
        show_result(read_record(folder), folder)
    return caplog.text


def test_the_result_is_a_table_in_the_headline_of_the_run(tmp_path, caplog):
    text = shown(made_run(tmp_path, accuracy=0.9, mb=0.1), caplog)
    assert "accuracy" in text and "0.9017" in text and "0.9000" in text and "10.7" in text
    text = shown(made_run(tmp_path, TEXT, bits_per_byte=2.5), caplog)
    assert "bits per byte" in text and "2.4900" in text and "2.5000" in text and "accuracy" not in text


def test_the_table_has_the_size_of_the_last_line_and_that_of_the_file(caplog):
    record = RunRecord(status="finished", size_mb={"float32": 1.0, "true": 0.0905, "file": 0.0683})
    with caplog.at_level(logging.INFO, "diffq_exp"):
        show_result(record, Path("outputs/a-run"))
    rows = [line.split("│")[1:-1] for line in caplog.text.splitlines() if "│" in line]
    found = {name.strip(): (mb.strip(), ratio.strip()) for name, _, mb, ratio in rows}
    assert found["formula, as in the epochs"] == ("0.0905", "11.0")
    assert found["model.safetensors"] == ("0.0683", "14.6")
    assert "formula 0.0905 MB" in epoch_line({**ROW, "size_mb": {"true": 0.0905}}, 3, Headline(), "images")


def test_rows_of_zeros_stand_beside_the_bits(caplog):
    bits = {"layers": {"conv1.weight": 3.0, "conv2.weight": 0.25}, "zero_rows": {"conv2.weight": [40, 64]}}
    record = RunRecord(status="finished", bits=bits)
    with caplog.at_level(logging.INFO, "diffq_exp"):
        show_result(record, Path("outputs/a-run"))
    lines = [" ".join(line.split()) for line in caplog.text.splitlines()]
    assert any(line.endswith("conv2.weight 0.25 40 of 64") for line in lines)
    assert any(line.endswith("conv1.weight 3.00") for line in lines)
