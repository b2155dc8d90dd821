"""The fenced blocks of the pages, and the comment that may stand on the line before them.

<!-- not run: reason -->      a block that needs a network, a cluster or a server; it is only looked at
<!-- composed: reason -->     commands that need data or much time; they are checked with dry_run=true
<!-- written to: PATH -->     a file that the commands after it use
<!-- quotes: PATH -->         a file of this repository, quoted whole
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+): (?P<note>[^\n]*?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block. kind: sh, python, yaml, or "" for text. mark, note: of the comment before it, else ""."""

    kind: str
    text: str
    mark: str
    note: str

    def commands(self) -> list[list[str]]:
        """The words of each line of a block of kind sh, without remarks."""
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        return [words for words in lines if words]


def blocks_of(page: str) -> list[Block]:
    found = FENCE.finditer((ROOT / page).read_text())
    return [Block(each["kind"], each["text"], each["mark"] or "", each["note"] or "") for each in found]
