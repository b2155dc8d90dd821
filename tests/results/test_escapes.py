"""What a record says is text in every file of a report."""

import csv

import pytest
from helpers.made_runs import made_run
from hypothesis import given
from hypothesis import strategies as st

from diffq_exp.common.printable import one_line, printable
from diffq_exp.report import main
from diffq_exp.results.escapes import cell, md, md_code, plain, tex


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("min_size=0.01", "min_size=0.01"),
        ("_a_ __b__", "\\_a\\_ \\_\\_b\\_\\_"),
        ('exclude=["norm*","*.bias"]', 'exclude=\\["norm\\*","\\*.bias"\\]'),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        ("a|b", "a\\|b"),
        ("[x](javascript:y) ![z](w)", "\\[x\\](javascript:y) !\\[z\\](w)"),
        ("`a` ~~b~~ $c$", "\\`a\\` \\~\\~b\\~\\~ \\$c\\$"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown(text, written):
    assert md(text) == written


@pytest.mark.parametrize(("text", "written"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")])
def test_a_span_of_code(text, written):
    assert md_code(text) == written


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\x00=1"])
def test_no_cell_is_a_formula(text):
    assert not cell(text).startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("value", [-1, -1.5, None, True, "quantizer", "a=b", ""])
def test_other_cells_are_as_they_are(value):
    assert cell(value) is value or cell(value) == value


def test_printable():
    assert (
        printable("a\x1b[31m\x07\x9b\u202eb\udcff\ud800\ufffe")
        == "a\\x1b[31m\\x07\\x9b\\u202eb\\udcff\\ud800\\ufffe"
    )
    assert printable("a\tb\nc\u2028d") == "a b c d"
    assert printable("schön 藜 🚀 \u200d") == "schön 藜 🚀 \u200d"
    assert one_line(ValueError("a\n  b\x1b")) == "a b\\x1b"


@given(st.text(), st.integers(2, 50))
def test_printable_text_can_be_written_everywhere(text, most):
    for written in (printable(text), printable(text, most), md(text), tex(text), plain(text)):
        assert written.encode() and "\n" not in written if text else True
    assert len(text) <= most or "…" in printable(text, most)


def test_what_a_shortened_text_keeps():
    assert printable("abcdefgh", 8) == "abcdefgh" and printable("abcdefghi", 8) == "abc…fghi"


def test_a_hostile_run_in_each_file(tmp_path, capsys):
    outputs = tmp_path / "outputs"
    made_run(outputs, ["quantizer=qat", "lr==1+1"])
    made_run(outputs, ["quantizer=<img src=x>|`*_", "lr=\x1b[31m\ud800"])
    made_run(outputs, ["quantizer=lsq", "noise=" + "n" * 100_000], "failed", reason="\x1b]0;x\x07" + "r" * 100_000)
    assert main([str(outputs), "--out", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    texts = {name: (tmp_path / name).read_text() for name in ("table.md", "runs.csv", "table.tex", "pareto.svg")}
    assert not any("\x1b" in text for text in texts.values()) and "<img" not in texts["table.md"]
    assert "&lt;img src=x&gt;\\|\\`\\*\\_" in texts["table.md"]
    cells = [each for row in csv.reader(texts["runs.csv"].splitlines()) for each in row]
    assert "'=1+1" in cells and "=1+1" not in cells and max(map(len, cells)) < 1100
