"""The pictures of README and docs are of one report, of runs that are all finished."""

import json
import re
import runpy
from pathlib import Path

import pytest
from helpers.made_runs import made_run, made_sweep

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "make_pictures.py"))


def finished_sweep(outputs):
    """made_sweep has jobs that failed and are missing; this one has not."""
    record = made_sweep(outputs, seeds=1)
    values = json.loads(record.read_text())
    values["jobs"] = [
        job
        for job in values["jobs"]
        if (outputs / job["folder"]).exists() and not re.search("1e30|bits=5", str(job))
    ]
    record.write_text(json.dumps(values))
    return record


def test_both_pictures_are_of_one_report(tmp_path, monkeypatch):
    finished_sweep(tmp_path / "outputs")
    pages = []

    def photograph(page, picture):
        pages.append(page.read_text(encoding="utf-8"))
        picture.write_bytes(b"")

    monkeypatch.setitem(SCRIPT["make_pictures"].__globals__, "photograph", photograph)
    assert SCRIPT["main"]([str(tmp_path / "outputs"), "--to", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"outputs", "pareto_digits.svg", "report_page.png"}
    assert "pareto_digits-1a2b3c4d" in pages[0]


def test_the_picture_of_another_front(tmp_path, capsys):
    record = finished_sweep(tmp_path)
    record.rename(record.with_name("pareto_text-1a2b3c4d.json"))
    assert SCRIPT["main"]([str(tmp_path), "--to", str(tmp_path)]) == 2  # there is none of the digits
    assert "no sweep of experiment=pareto_digits" in capsys.readouterr().err
    assert SCRIPT["main"]([str(tmp_path), "--to", str(tmp_path), "--experiment", "pareto_text"]) == 0
    assert "QAT" in (tmp_path / "pareto_text.svg").read_text(encoding="utf-8")
    assert not (tmp_path / "report_page.png").exists()
    (tmp_path / "pareto_text.svg").unlink()
    assert SCRIPT["main"]([str(tmp_path), "--to", str(tmp_path), "--sweep", "pareto_text-1a2b3c4d"]) == 0
    assert (tmp_path / "pareto_text.svg").exists() and not (tmp_path / "pareto_digits.svg").exists()


@pytest.mark.parametrize(
    ("words", "message"), [([], "4 runs are not finished"), (["--sweep", "pareto_digits-1a2b"], "did you mean")]
)
def test_runs_that_are_not_finished_make_no_picture(tmp_path, capsys, words, message):
    made_sweep(tmp_path, seeds=1)
    assert SCRIPT["main"]([str(tmp_path), "--to", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "pareto_digits.svg").exists()


def test_no_sweep_at_all(tmp_path, capsys):
    made_run(tmp_path)
    assert SCRIPT["main"]([str(tmp_path)]) == 2
    assert "no sweep of experiment=pareto_digits" in capsys.readouterr().err
