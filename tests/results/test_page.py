"""The page's file: whole, small, and harmless whatever runs are called."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.made_runs import made_run, made_sweep

from diffq_exp.common.printable import printable
from diffq_exp.results.discovery import find_runs
from diffq_exp.results.page import MAX_BYTES, PARTS, SCRIPTS, data_within, embedded, write_page
from diffq_exp.results.page_data import page_data
from diffq_exp.results.summary import Report, make_report
from diffq_exp.results.sweep_records import read_sweep, runs_of

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\u2028 & ]]>",
    "{{data}}",
]


def report_of(outputs: Path, **options) -> Report:
    return make_report(find_runs([outputs]), **options)


def sweep_report(outputs: Path) -> Report:
    sweep = read_sweep(outputs, made_sweep(outputs).stem)
    return make_report(runs_of(sweep, find_runs([outputs])), sweep, by=sweep.by)


class Elements(HTMLParser):
    """Every tag with its attributes, and the text of each script, as a browser's parser splits them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.title = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        if self._inside == "title":
            self.title += data


def written(report: Report, folder: Path) -> Elements:
    write_page(report, folder / "index.html")
    return Elements((folder / "index.html").read_text(encoding="utf-8"))


# ---- the file ---------------------------------------------------------------------------------------------------


def test_one_file_with_everything_in_it(tmp_path):
    page = written(sweep_report(tmp_path / "outputs"), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.html"]
    assert (tmp_path / "index.html").stat().st_size < MAX_BYTES
    assert page.title == "pareto_digits-1a2b3c4d"
    assert len(page.scripts) == 3 and all(page.scripts)
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.tags)
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert ("html", {"lang": "en"}) in page.tags


def test_no_part_of_ours_names_an_address_but_that_of_svg():
    text = "".join(path.read_text(encoding="utf-8") for path in PARTS.iterdir())
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert {path.name for path in PARTS.iterdir()} == {*SCRIPTS, "page.css", "template.html"}


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_becomes_a_tag(tmp_path, text):
    made_run(tmp_path / "outputs", ["bits=4"], reason=text)
    made_run(tmp_path / "outputs", ["noise=" + text])
    made_run(tmp_path / "outputs", ["lr=1e30"], "failed", reason=text)
    page = written(report_of(tmp_path / "outputs"), tmp_path)
    assert len(page.scripts) == 3
    assert not any(tag == "img" for tag, _ in page.tags)
    data = json.loads(page.scripts[0])
    assert data["unfinished"][0]["reason"] == printable(text)
    assert f"noise={printable(text)}" in [
        override for point in data["problems"][0]["points"] for override in point["overrides"]
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_title_is_text(tmp_path, text):
    folder = tmp_path / text.replace("/", "")
    made_run(folder)
    page = written(report_of(folder), tmp_path)
    assert page.title == printable(folder.name) and len(page.scripts) == 3


def test_embedded_json_is_ascii_and_without_angle_brackets():
    text = embedded({"name": "".join(HOSTILE)})
    assert text.isascii() and not set("<>&") & set(text)
    assert json.loads(text) == {"name": "".join(HOSTILE)}


def test_plotly_is_imported_only_to_write_a_page():
    check = "import sys, diffq_exp.results.page; print({'plotly', 'torch', 'matplotlib'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("made", [False, True], ids=["no run at all", "none that finished"])
def test_nothing_finished(tmp_path, made):
    (tmp_path / "outputs").mkdir()
    if made:
        made_run(tmp_path / "outputs", ["lr=1e30"], "failed", reason="no")
    report = report_of(tmp_path / "outputs")
    assert page_data(report)["problems"] == []
    written(report, tmp_path)


def test_numbers_have_six_digits_and_no_nan(tmp_path):
    data = {"runs": [], "values": [0.123456789, float("nan"), float("inf"), 12, None, True]}
    assert json.loads(data_within(data, 1000))["values"] == [0.123457, None, None, 12, None, True]


# ---- bounds -----------------------------------------------------------------------------------------------------


def data_of(runs: int, epochs: int) -> dict:
    columns = {"epoch": list(range(1, epochs + 1)), "true": [at / 7 for at in range(epochs)]}
    return {"runs": [{"curves": columns, "bits": [2.5]} for _ in range(runs)]}


def test_curves_are_thinned_to_the_room_that_there_is_and_keep_both_ends():
    data = data_of(10, 100)
    whole = data_within(data, 10**6)
    assert json.loads(whole)["epochs_kept"] is None
    assert len(json.loads(whole)["runs"][0]["curves"]["epoch"]) == 100
    text = data_within(data, len(whole) // 3)
    kept = json.loads(text)["epochs_kept"]
    curves = json.loads(text)["runs"][0]["curves"]
    assert len(text) <= len(whole) // 3 and kept == 20
    assert len(curves["epoch"]) == len(curves["true"]) == 20
    assert (curves["epoch"][0], curves["epoch"][-1]) == (1, 100)
    assert curves["epoch"] == sorted(set(curves["epoch"]))


def test_without_any_room_no_curves_are_left():
    run = json.loads(data_within(data_of(3, 100), 0))["runs"][0]
    assert (run["curves"], run["bits"]) == ({}, None)


def test_a_thousand_runs_fit_with_room_to_spare(tmp_path):
    folder = made_run(tmp_path, ["penalty=1"], epochs=20, layers=[f"stage.{at}.weight" for at in range(10)])
    data = page_data(report_of(tmp_path))
    bytes_of_a_run = len(embedded(data["runs"])) + len(embedded(data["problems"][0]["points"]))
    assert folder.exists() and 1000 * bytes_of_a_run < 4 * 10**6
