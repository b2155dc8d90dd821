"""README is read in two minutes, and its table of rooms is the contract of imports in pyproject.toml."""

import re

from docs.pages import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_it_is_short():
    lines = TEXT.splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 120


def test_the_table_of_rooms_is_the_contract():
    contract = (ROOT / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    layers = [re.findall(r"diffq_exp\.(\w+)", line) for line in contract.strip().splitlines()]
    table = TEXT.partition("| rooms of")[2].partition("\n\n")[0].splitlines()[2:]
    assert [re.findall(r"`(\w+)`", row.split("|")[1]) for row in table] == layers
