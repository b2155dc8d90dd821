"""The display of a sweep: its lines, and the best run in the direction of the headline."""

import logging

import pytest
from helpers.made_runs import TEXT, made_run

from diffq_exp.results.records import RunRecord, read_record
from diffq_exp.sweeps.progress import SweepDisplay, duration


@pytest.mark.parametrize(("seconds", "text"), [(8.2, "8 s"), (75.2, "1 min 15 s"), (3720, "1 h 2 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def ended(display, folder):
    display.started()
    record = read_record(folder)
    display.ended(" ".join(record.overrides), record.status, record, record.reason or "")


def test_the_best_has_the_highest_accuracy_and_the_lowest_bits_per_byte(tmp_path):
    display = SweepDisplay(5, 1)
    for number, accuracy in enumerate((0.8, 0.9, 0.7)):
        ended(display, made_run(tmp_path, [f"seed={number}"], accuracy=accuracy))
    for number, score in enumerate((2.5, 2.3)):
        ended(display, made_run(tmp_path, [*TEXT, f"seed={number}"], bits_per_byte=score))
    assert {name: record.score for name, record in display.best.items()} == {"accuracy": 0.9, "bits_per_byte": 2.3}


def test_of_equal_scores_the_smaller_network_is_the_best(tmp_path):
    display = SweepDisplay(2, 1)
    for number, mb in enumerate((0.1, 0.05)):
        ended(display, made_run(tmp_path, [f"seed={number}"], accuracy=0.8, mb=mb))
    assert display.best["accuracy"].size_mb["file"] == 0.05


def test_each_job_is_a_line(tmp_path, caplog):
    display = SweepDisplay(2, 1)
    with caplog.at_level(logging.INFO, "diffq_exp"):
        ended(display, made_run(tmp_path, [*TEXT, "penalty=3"], bits_per_byte=2.5, mb=0.1))
        display.started()
        display.ended("penalty=4", "killed", RunRecord(), "out of memory")
    assert "[1/2]" in caplog.text and "2.5000  file 0.1000 MB" in caplog.text
    assert "killed" in caplog.text and "penalty=4  : out of memory" in caplog.text and display.failed == 1
