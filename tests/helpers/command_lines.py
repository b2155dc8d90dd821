"""Command lines that are checked or refused in this process."""

import sys
from functools import cache

from diffq_exp.command.check import Plan, check
from diffq_exp.train import main


@cache
def checked(*words: str) -> Plan:
    return check(words)


def errors_of(*words: str) -> list[str]:
    errors = checked(*words).errors
    assert all(error and "\n" not in error for error in errors)
    return errors


def only_error(*words: str) -> str:
    (error,) = errors_of(*words)
    return error


def refused(capsys, monkeypatch, tmp_path, line: str) -> str:
    """The one line on standard error of a command that is refused; nothing was written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", *line.split()])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == "" and list(tmp_path.iterdir()) == []
    assert err.endswith("\n") and err.count("\n") == 1
    return err
