"""docs/configuration.md: every plain key, and every YAML file of every group, from the schema and conf/ themselves.

The page is written by scripts/make_configuration_page.py, and a test sees that it says what the schema says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path

from .help import default_of
from .ranges import NODE_RANGES, shown
from .schema import GROUPS, PLAIN, Config, conf_dir

HEAD = """# Configuration

*Made from the schema and conf/ by `python scripts/make_configuration_page.py`; do not edit.*

A run is described by one YAML file of each group and by plain keys. `python -m diffq_exp.train --cfg job` shows the
whole configuration of a command, `--help` a shorter form of this page. On the command line:

- `key=value` sets a plain key, `group=choice` chooses a YAML file;
- `group.key=value` sets a key of the chosen file, `+group.key=value` adds one that its target takes;
- `group._target_=package.Class` takes a class or function of your own;
- with `-m`, `key=a,b` and `key=range(3)` make a sweep.

## Plain keys

General defaults; the default experiment, [digits](#experimentdigits), sets some of them anew.

| key | default | range | meaning |
|---|---|---|---|"""
EXPERIMENTS = """
An experiment decides over the groups and keys named in it; what is typed decides over both."""
KEY = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\n]*?))? *(?:# *(?P<comment>.*))?$")


def configuration_page() -> str:
    """The text of the page."""
    lines = [HEAD, *map(_plain_row, (field for field in fields(Config) if field.metadata))]
    for group in GROUPS:
        lines += ["", f"## Group `{group}`"] + ([EXPERIMENTS] if group == "experiment" else [])
        for path in sorted((conf_dir() / group).glob("*.yaml")):
            lines += ["", f"### {group}={path.stem}", "", *_choice(group, path)]
    return "\n".join(lines) + "\n"


def _plain_row(field: Field[object]) -> str:
    allowed = PLAIN[field.name].text
    return _row(f"`{field.name}`", f"`{shown(default_of(field))}`", allowed, field.metadata["help"])


def _choice(group: str, path: Path) -> Iterator[str]:
    """A YAML file: its first comment, its target, and a table of its keys; an experiment as it is."""
    text = path.read_text().splitlines()
    comment = [line.lstrip("# ") for line in text if line.startswith("#") and "@package" not in line]
    if comment:
        yield from (" ".join(comment), "")
    if group == "experiment":
        yield from ("```yaml", *(line for line in text if not line.startswith("#")), "```")
        return
    rows = list(_keys(group, text))
    yield next((f"Target: {value}" for name, value, _ in rows if name == f"{group}._target_"), "No target.")
    if keys := [row for row in rows if not row[0].endswith("._target_")]:
        yield from ("", "| key | value | |", "|---|---|---|")
        yield from (_row(f"`{name}`", value, _remark(name, comment)) for name, value, comment in keys)


def _keys(group: str, text: list[str]) -> Iterator[tuple[str, str, str]]:
    """(full name, value in code quotes, comment) of each key of a YAML file of nested mappings."""
    parents: list[tuple[int, str]] = [(-1, group)]
    for line in text:
        if (found := KEY.match(line)) is None:
            continue
        indent = len(found["indent"])
        while parents[-1][0] >= indent:
            parents.pop()
        name = f"{parents[-1][1]}.{found['key']}"
        parents.append((indent, name))
        if found["value"]:
            yield name, f"`{found['value']}`", found["comment"] or ""


def _remark(name: str, comment: str) -> str:
    return "; ".join(part for part in (NODE_RANGES[name].text if name in NODE_RANGES else "", comment) if part)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
