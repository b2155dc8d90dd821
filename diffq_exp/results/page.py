"""The report as a single page, index.html, without other files: charts, curves, tables and command lines.

Python only gathers the data, as JSON in the page; the JavaScript in page/ draws from it with plotly, which is put
into the page too. What runs call themselves may be anything: as data it is escaped so that no HTML
parser sees a tag in it, the scripts write it as text only, and the page's own policy forbids it every connection.
The page stays below MAX_BYTES: of very many runs it keeps fewer epochs of the curves, and says so.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

from ..common.files import replacing
from ..common.printable import printable
from .escapes import plain
from .page_data import page_data, title_of
from .summary import Report

MAX_BYTES = 10 * 10**6
EPOCHS_KEPT = (None, 60, 30, 20, 10, 5, 0)  # of each run's curves: the first that leaves the page small enough
PARTS = Path(__file__).parent / "page"
SCRIPTS = ("page.js", "axes.js", "front.js", "run.js", "tables.js")


def write_page(report: Report, target: Path) -> None:
    """Write the page of a report to `target`, a file whose folder exists."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # 5 MB: only when a page is written

    script = "\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    texts = {
        "title": html.escape(printable(title_of(report), 200)),
        "style": (PARTS / "page.css").read_text(encoding="utf-8"),
        "plotly": get_plotlyjs(),
        "script": script,
    }
    room = MAX_BYTES - sum(len(text.encode()) for text in texts.values()) - 10_000
    template = (PARTS / "template.html").read_text(encoding="utf-8")
    texts["data"] = data_within(page_data(report), room)
    page = re.sub(r"{{(\w+)}}", lambda name: texts[name[1]], template)
    with replacing(target) as file:
        file.write(page.encode())


# ---- JSON in a page, of bounded size ----------------------------------------------------------------------------


def data_within(data: dict[str, Any], room: int) -> str:
    """The data as JSON of at most `room` bytes, if fewer epochs of the curves suffice (at last none, nor bits)."""
    data = plain(data)
    for kept in EPOCHS_KEPT:
        text = embedded(data | {"epochs_kept": kept, "runs": [_thinned(run, kept) for run in data["runs"]]})
        if len(text) <= room:
            break
    return text


def _thinned(run: dict[str, Any], kept: int | None) -> dict[str, Any]:
    """A run with at most `kept` rows of its curves, the first and the last among them; None keeps all."""
    rows = len(run["curves"].get("epoch", ()))
    if kept == 0:
        return run | {"curves": {}, "bits": None}
    if kept is None or rows <= kept:
        return run
    chosen = [round(step * (rows - 1) / (kept - 1)) for step in range(kept)]
    return run | {"curves": {name: [column[at] for at in chosen] for name, column in run["curves"].items()}}


def embedded(data: object) -> str:
    """ASCII JSON for a <script> element: no character in it can end or open a tag."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
