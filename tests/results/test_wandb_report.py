"""The report as a run of W&B: what its segment holds, when there is none, and that it cannot hang or fail."""

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from helpers.made_runs import TEXT, made_run, made_sweep
from helpers.wandb_fakes import Server, mute_server, read_segment
from helpers.wandb_runs import alone, segments, stored_in, warnings_in  # noqa: F401

from diffq_exp.report import main
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of
from diffq_exp.results.wandb_report import front_chart, log_report
from diffq_exp.tracking.wandb_tracker import WandbTracker

WANDB = {"_target_": "diffq_exp.tracking.wandb_tracker.WandbTracker", "project": "p", "entity": None, "mode": None}
WANDB |= {"timeout_seconds": 10, "group": "other", "job_type": "train", "tags": ["x"]}
pytestmark = pytest.mark.usefixtures("alone")


def report_of(outputs, tracking=WANDB):
    """A sweep's report with a page, its newest run tracked so."""
    sweep = read_sweep(outputs, made_sweep(outputs, seeds=1).stem)
    report = make_report(runs_of(sweep, find_runs([outputs])), sweep)
    if tracking is not None:
        hydra = report.runs[0].folder / ".hydra"
        hydra.mkdir()
        (hydra / "config.yaml").write_text(yaml.safe_dump({"tracking": tracking}))
    out = outputs / "report"
    out.mkdir()
    (out / "index.html").write_text("<html>")
    return report, out


def test_the_segment_holds_table_chart_page_and_marks(tmp_path, caplog):
    report, out = report_of(tmp_path)
    (line,) = log_report(report, out)
    stored = stored_in(out)
    assert line == f"W&B: {stored.segment}"
    assert (stored.run.project, stored.run.run_group, stored.run.job_type) == ("p", report.sweep.name, "report")
    assert stored.run.display_name == f"report {report.sweep.name}"
    assert (stored.config["sweep"], stored.config["size"]) == (report.sweep.name, "file")
    (row,) = stored.rows
    table = json.loads((stored.segment / "files" / row["runs"]["path"]).read_text())
    assert len(table["data"]) == 17 + 4 and "test.accuracy" in table["columns"]
    chart = json.loads((stored.segment / "files" / row["front/digits-digits_cnn"]["path"]).read_text())
    lines = {trace["name"]: trace for trace in chart["data"] if "lines" in trace["mode"]}
    assert set(lines) == {"DiffQ", "QAT", "LSQ", "PTQ", "float32"}
    front = report.problems[0].methods["qat"].front
    assert lines["QAT"]["x"] == [point.size for point in front] and "bits=2" in lines["QAT"]["text"][0]
    (artifact,) = [item for item in stored.artifacts if item.type == "report"]
    assert [Path(content.local_path) for content in artifact.manifest.contents] == [out / "index.html"]
    for other in stored.artifacts:  # of the table: what `wandb sync` sends lies here too
        assert all(Path(content.local_path).is_relative_to(out) for content in other.manifest.contents)
        assert all(Path(content.local_path).is_file() for content in other.manifest.contents)
    volumes = stored.summary["hypervolume/digits-digits_cnn/qat"]
    assert volumes == pytest.approx(report.problems[0].methods["qat"].hypervolume)
    assert warnings_in(caplog) == []


def test_a_chart_in_bits_per_byte(tmp_path):
    made_run(tmp_path, [*TEXT, "quantizer=none"], bits_per_byte=2.3)
    made_run(tmp_path, [*TEXT, "quantizer=qat"], bits_per_byte=2.5)
    (problem,) = make_report(find_runs([tmp_path])).problems
    chart = front_chart(problem, "file")
    assert chart["layout"]["yaxis"]["title"]["text"] == "test bits per byte (lower is better)"
    assert [(shape["y0"], shape["y1"]) for shape in chart["layout"]["shapes"]] == [(2.3, 2.3)]
    traces = {trace["name"]: trace for trace in chart["data"] if "lines" in trace["mode"]}
    assert traces["QAT"]["y"] == [2.5] and "(2.5000 bits per byte, 1 runs)" in traces["QAT"]["text"][0]


def test_a_second_report_takes_the_place_of_the_first(tmp_path):
    report, out = report_of(tmp_path)
    other = out / "wandb" / "offline-run-20260101_000000-somebody"
    other.mkdir(parents=True)
    for _ in range(2):
        (line,) = log_report(report, out)
    assert {path.name for path in segments(out)} == {other.name, Path(line.split(": ")[1]).name}
    assert len(list((out / "wandb").glob("files-*"))) == 1


NULL = {"_target_": "diffq_exp.tracking.wandb_tracker.NullTracker"}


@pytest.mark.parametrize("tracking", [None, NULL, {**WANDB, "mode": "disabled"}])
def test_runs_that_are_not_tracked_make_no_report_that_is(tmp_path, tracking):
    report, out = report_of(tmp_path, tracking)
    assert log_report(report, out) == [] and not (out / "wandb").exists()


def test_the_environment_and_the_option_turn_it_off(tmp_path, monkeypatch, capsys):
    _, out = report_of(tmp_path)
    shutil.rmtree(out)
    monkeypatch.setattr(
        "diffq_exp.results.publish.draw", lambda *_: []
    )  # matplotlib leaves its cache in the home folder
    main([str(tmp_path), "--no-wandb"])
    assert not (out / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    main([str(tmp_path)])
    assert not (out / "wandb").exists() and "W&B" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tracking", "text"),
    [
        ({**WANDB, "mode": "sideways"}, "tracking.mode is 'sideways'"),
        ("just a word", "the report is not logged"),
    ],
)
def test_a_wrong_config_is_told_and_no_more(tmp_path, tracking, text):
    (line,) = log_report(*report_of(tmp_path, tracking))
    assert text in line and "\n" not in line


def test_interpolations_in_the_config_are_left_alone(tmp_path):
    report, out = report_of(tmp_path, {**WANDB, "project": "${oc.env:PROJECT}"})
    log_report(report, out)
    assert stored_in(out).run.project == "diffq_exp"


@pytest.mark.long
def test_a_server_that_gives_up_half_way_makes_it_offline(tmp_path, monkeypatch, caplog):
    """The table and charts are logged a second time, into the segment that takes over."""
    report, out = report_of(tmp_path, {**WANDB, "mode": "online", "timeout_seconds": 3})
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        start = WandbTracker.start
        monkeypatch.setattr(WandbTracker, "start", lambda *given: (start(*given), server.mute.set()))
        (line,) = log_report(report, out)
    assert "offline-run" in line
    stored = read_segment(Path(line.split(": ")[1]))
    assert "W&B did not take the end of the run" in warnings_in(caplog)[0]
    assert {"runs", "front/digits-digits_cnn"} <= set(stored.rows[0])
    assert len(list((stored.segment / "files" / "media").rglob("*.json"))) == 2


def test_a_server_that_does_not_answer_makes_it_offline(tmp_path, monkeypatch, caplog):
    report, out = report_of(tmp_path, {**WANDB, "mode": "online", "timeout_seconds": 1})
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    started = time.monotonic()
    with mute_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        (line,) = log_report(report, out)
    assert time.monotonic() - started < 60 and "offline-run" in line
    (segment,) = [path for path in segments(out) if path.name.startswith("offline")]
    assert len(list((segment / "files" / "media").rglob("*.json"))) == 2
    assert "wandb sync" in warnings_in(caplog)[0]
