"""Fill the blocks of docs/ that quote files: python scripts/quote_files.py

A block is a quotation if the line before it is an HTML comment `quotes: PATH`. A test checks that it is whole.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUOTATION = re.compile(r"(^<!-- quotes: (\S+) -->\n```\w+\n)(.*?)(^```$)", re.M | re.S)


def quoted(match: re.Match[str]) -> str:
    before, path, _, after = match.groups()
    return before + (ROOT / path).read_text() + after


if __name__ == "__main__":
    for page in sorted((ROOT / "docs").glob("*.md")):
        page.write_text(QUOTATION.sub(quoted, page.read_text()))
