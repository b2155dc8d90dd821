"""The tables as text, and runs.csv read back."""

import csv
import io
import re

import pytest
from helpers.made_runs import TEXT, made_run, made_sweep
from rich.console import Console

from diffq_exp.results.discovery import find_runs
from diffq_exp.results.summary import make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of
from diffq_exp.results.tables import (
    Table,
    latex,
    markdown,
    megabytes,
    problem_tables,
    rich_table,
    tex,
    write_tables,
)


@pytest.fixture
def report(tmp_path):
    sweep = read_sweep(tmp_path, made_sweep(tmp_path, seeds=2).stem)
    return make_report(runs_of(sweep, find_runs([tmp_path])), sweep)


def test_csv_has_a_line_per_run_with_what_varies_and_what_came_out(report, tmp_path):
    write_tables(report, tmp_path)
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert len(rows) == 34 + 4 and len({row["folder"] for row in rows}) == len(rows)
    assert {row["status"] for row in rows} == {"finished", "diverged", "failed", "missing"}
    by_signature = {row["signature"]: row for row in rows}
    for run in report.runs:
        row = by_signature[run.signature]
        assert float(row["test.accuracy"]) == run.score and float(row["size_mb.file"]) == run.size("file")
        assert row["choices.quantizer"] == run.choices["quantizer"]
        assert row["config.bits"] == str(run.config.get("bits", "")) and row["config.seed"] == str(run.seed)
    (failed,) = (row for row in rows if row["status"] == "failed")
    assert (failed["reason"], failed["test.accuracy"]) == ("OSError: disk full", "")
    assert "config.batch_size" not in rows[0]  # the same everywhere
    missing = [row for row in rows if row["status"] == "missing"]
    assert [(row["choices.quantizer"], row["config.bits"], row["config.seed"]) for row in missing] == [
        ("qat", "6", "0"), ("qat", "6", "1"),
    ]  # fmt: skip


def test_markdown_page(report, tmp_path):
    write_tables(report, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("# pareto_digits-1a2b3c4d") and report.sweep.command in text
    assert "1 diverged, 1 failed, 2 missing" in text and "OSError: disk full" in text
    assert "python -m diffq_exp.train quantizer=qat bits=6 seed=1" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in tables[:7]}
    assert len(widths) == 1  # of the first table: a header, a rule, five methods


def test_numbers_of_a_method(tmp_path):
    made_run(tmp_path, ["quantizer=none"], accuracy=0.99, mb=1.08)
    for seed, accuracy in enumerate((0.98, 0.99)):
        made_run(tmp_path, ["quantizer=qat", "bits=3", f"seed={seed}"], accuracy=accuracy, mb=0.1)
    (problem,) = make_report(find_runs([tmp_path]), sizes=[0.05, 0.2]).problems
    methods, front = problem_tables(problem, "file")
    assert methods.header[3:] == ["within 0.5", "within 1", "% at 0.0500 MB", "% at 0.200 MB"]
    assert methods.rows[0][:2] == ["QAT", "1"] and methods.rows[0][3:] == ["0.100", "0.100", "-", "98.50 ± 0.71"]
    assert methods.rows[1] == ["float32", "1", "0.0", "1.08", "1.08", "-", "-"]
    assert "which has 99.00 % and 1.08 MB" in methods.note
    assert front.rows[0] == ["QAT", "-", "98.50 ± 0.71", "0.100", "2"]


def test_numbers_in_bits_per_byte(tmp_path):
    made_run(tmp_path, [*TEXT, "quantizer=none"], bits_per_byte=2.3, mb=1.08)
    for seed, score in enumerate((2.32, 2.34)):
        made_run(tmp_path, [*TEXT, "quantizer=qat", "bits=3", f"seed={seed}"], bits_per_byte=score, mb=0.1)
    report = make_report(find_runs([tmp_path]), sizes=[0.05, 0.2])
    methods, front = problem_tables(report.problems[0], "file")
    header = ["within 0.05", "within 0.1", "bits per byte at 0.0500 MB", "bits per byte at 0.200 MB"]
    assert methods.header[3:] == header
    assert methods.rows[0][3:] == ["0.100", "0.100", "-", "2.3300 ± 0.0141"]
    assert methods.note == (
        "Hypervolume: bits per byte x halvings of the float32 size, below chance. "
        "Within N: the smallest MB at most N bits above float32, which has 2.3000 bits per byte and 1.08 MB."
    )
    assert front.header[2] == "bits per byte" and front.rows[0][2] == "2.3300 ± 0.0141"
    write_tables(report, tmp_path)
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    names = [name for name in rows[0] if name.startswith(("test.", "val."))]
    assert names == [
        "test.bits_per_byte", "test.loss", "test.float32_bits_per_byte", "val.bits_per_byte", "val.loss"
    ]  # fmt: skip
    assert sorted(float(row["test.bits_per_byte"]) for row in rows) == [2.3, 2.32, 2.34]


def test_missing_float32_is_said(tmp_path):
    made_run(tmp_path, ["quantizer=qat"])
    (problem,) = make_report(find_runs([tmp_path])).problems
    assert "there is no run (add quantizer=none)" in problem_tables(problem, "true")[0].note


@pytest.mark.parametrize(
    ("size", "text"), [(0.0471234, "0.0471"), (0.27, "0.270"), (1.0, "1.00"), (144.6, "145"), (None, "-")]
)
def test_megabytes(size, text):
    assert megabytes(size) == text


HOSTILE = "a_b & 50% $x$ #1 {} ~ ^ \\ [1pt] * | ± <b>"


def test_latex_is_booktabs_and_escaped():
    text = latex(Table(HOSTILE, ("a", "b"), [(HOSTILE, "[2pt]"), ("*", "2")], note=HOSTILE))
    body = text.split(r"\midrule")[1]
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{table}")] == [1, 1, 1, 1]
    assert r"\begin{tabular}{lr}" in text
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 and all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert not any(re.match(r"\s*[\[*]", row) for row in rows)  # options of the \\ before it
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_tex_has_nothing_left_that_means_something():
    left = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]|\$\\pm\$|\{[\[\]*]\}", "", tex(HOSTILE))
    assert not re.search(r"[&%$#_{}~^\\\[\]*|<>±]", left)


def test_markdown_cells_cannot_break_the_table():
    text = markdown(Table("t", ("a", "b"), [("x|y", "1\n2")]))
    assert "| x\\|y | 1 2 |" in text


def test_long_tables_say_how_much_is_left_out():
    table = Table("t", ("a",), [(str(number),) for number in range(9)])
    assert "and 6 more" in markdown(table, 3) and "| 3 |" not in markdown(table, 3)
    shown = printed(rich_table(table, 3))
    assert "and 6 more" in shown and "2" in shown and "3" not in shown


def test_an_override_is_text_on_the_terminal():
    shown = printed(rich_table(Table("[red]title", ("[b]",), [("[/x] exclude=[a]",)], note="[/y]")))
    assert all(text in shown for text in ("[red]title", "[b]", "[/x] exclude=[a]", "[/y]"))


def test_a_long_title_or_note_is_not_squeezed_into_a_narrow_table():
    assert "word " * 15 in printed(rich_table(Table("word " * 16, ("a",), [], note="word " * 16)))


def printed(table):
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()
