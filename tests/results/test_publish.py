"""The report at the end of a sweep: it is shown, written, logged, and cannot fail the sweep."""

import logging

from helpers.made_runs import made_sweep

from diffq_exp.results.publish import report_sweep

SWEEP = "pareto_digits-1a2b3c4d"


def test_a_sweep_logs_where_its_report_is(tmp_path, capsys, caplog):
    made_sweep(tmp_path, seeds=1)
    with caplog.at_level(logging.INFO, "diffq_exp"):
        report_sweep(tmp_path, SWEEP)
    assert "2 missing" in capsys.readouterr().out
    assert str(tmp_path / "report" / SWEEP) in caplog.text
    assert (tmp_path / "report" / SWEEP / "index.html").is_file()


def test_a_report_cannot_fail_a_sweep(tmp_path, caplog):
    made_sweep(tmp_path, seeds=1)
    (tmp_path / "report").write_text("in the way")
    report_sweep(tmp_path, SWEEP)
    report_sweep(tmp_path, "unknown")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 2 and all(line.startswith("no report: ") and "\n" not in line for line in lines)
