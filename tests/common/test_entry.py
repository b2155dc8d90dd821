"""What stands around the entry points: a reader that stops reading, and the name of the command."""

import os
import sys
from contextlib import contextmanager

import pytest

from diffq_exp import evaluate, export, report, search, train
from diffq_exp.common.entry import entry_point, program
from diffq_exp.results import publish

MAINS = {"train": train, "evaluate": evaluate, "export": export, "report": report, "search": search}
SHOWN = (["--cfg", "job"], ["--info"], ["--hydra-help"])


@contextmanager
def unread(monkeypatch):
    """Standard output is a pipe whose reader has gone; set inside of a test, since pytest sets it before each."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield
        stream.flush()  # as Python does at its end


def ended(main, argv):
    try:
        return main(argv)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    ("name", "argv"),
    [*((name, ["--help"]) for name in MAINS), *(("train", words) for words in SHOWN)],
)
def test_nobody_reads_on(name, argv, capfd, monkeypatch):
    with unread(monkeypatch):
        assert ended(MAINS[name].main, argv) in (0, None)
    assert capfd.readouterr().err == ""


def test_a_report_that_nobody_reads_is_written(monkeypatch):
    """What a command writes does not depend on who reads what it prints."""
    done = []

    @entry_point
    def main(argv=None):
        publish.say("a line")
        done.append("written")
        return 0

    with unread(monkeypatch):
        assert main([]) == 0 and done == ["written"]


def test_a_command_is_called_by_its_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/diffq-export", "--help"])
    assert program("export") == "diffq-export"
    with pytest.raises(SystemExit):
        export.main()
    assert capsys.readouterr().out.startswith("usage: diffq-export [-h]")
    monkeypatch.setattr(sys, "argv", ["/home/me/diffq_exp/train.py"])
    assert program("train") == "python -m diffq_exp.train"


@pytest.mark.parametrize("name", ["evaluate", "export", "report", "search"])
def test_help_says_what_the_module_says_to_the_end(name, capsys):
    with pytest.raises(SystemExit):
        MAINS[name].main(["--help"])
    description = " ".join(MAINS[name].__doc__.partition("\n\n")[2].split())
    assert description.endswith(".") and description in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["evaluate", "export", "report", "search"])
def test_a_wrong_option_is_one_line(name, capsys):
    with pytest.raises(SystemExit) as end:
        MAINS[name].main(["somewhere", "--seeds", "x", "--nosuch"])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
