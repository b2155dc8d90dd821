"""The commands and the Python of README and docs/ run, in the order of their page, on tiny data."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from docs.pages import PAGES, ROOT, Block, blocks_of
from helpers import warm

TINY = (
    "dataset=synthetic", "dataset.num_classes=4", "dataset.channels=1", "dataset.image_size=8",
    "dataset.train_images=64", "dataset.test_images=16",
)  # fmt: skip
SHORT = ("epochs=1", "batch_size=32", "device=cpu", "threads=1", "tracking=none")
TRAIN = "diffq_exp.train"
SEARCH = "diffq_exp.search"
NO_TRAINING = {"--help", "--cfg"}
MANY = (
    "README.md",
    "docs/concepts.md",
    "docs/quickstart.md",
    "docs/sweeps_and_reports.md",
    "docs/extending.md",
)  # of many commands


def is_python(words: list[str]) -> bool:
    return words[:2] == ["python", "-m"] and words[2].startswith("diffq_exp.")


def shortened(words: list[str]) -> list[str]:
    """The overrides of a train command on tiny data, a sweep of -m cut to two runs, other sweeps planned."""
    if NO_TRAINING & set(words):
        return words
    experiment = next((word for word in words if word.startswith("experiment=")), "")
    if experiment:
        return [*(word.split(",")[0] for word in words if word != "dry_run=true"), "dry_run=true"]
    if "-m" in words:
        first = next(number for number, word in enumerate(words) if "," in word)
        words = [",".join(word.split(",")[: 2 if number == first else 1]) for number, word in enumerate(words)]
        words = [*words, "hydra/launcher=basic"]
    data = () if any(word.startswith("dataset") for word in words) else TINY
    return [*words, *data, *SHORT]


def planned(words: list[str]) -> list[str]:
    """Checked, not run: without what is the cluster's."""
    return [*(word for word in words if not word.startswith("hydra")), "dry_run=true"]


def steps_of(block: Block, folder: Path) -> list[list]:
    """What the driver has to do for a block."""
    if block.mark in ("written to", "quotes"):
        path = folder / block.note.removeprefix("tests/extending/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        return []
    if block.kind == "python":
        return [["python", block.text]]
    steps = []
    for words in block.commands() if block.kind == "sh" else ():
        if is_python(words):
            module, rest = words[2], words[3:]
            if module == TRAIN:
                rest = planned(rest) if block.mark else shortened(rest)
            if module == SEARCH:
                own = [word for word in rest if word.startswith(("trials=", "over=", "quantizer="))]
                short = ["trials=1", *own[1:]] if own else ["max_drop=0.9", "probes=1", "quantizer=qat"]
                rest = [*short, *TINY, *SHORT]
            if ["run", module, rest] not in steps:
                steps.append(["run", module, rest])
        elif words[0] == "make":
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        else:
            assert block.mark == "not run", f"{words}: no test runs it, and no comment says why"
    return steps


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.long] * (page in MANY)) for page in PAGES])
def test_the_blocks_of_a_page_run(page, tmp_path):
    for name in ("FILE", "DIR/train/a/x.png", "DIR/train/b/x.png", "DIR/val/a/x.png", "DIR/val/b/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 10_000)
    steps = [step for block in blocks_of(page) for step in steps_of(block, tmp_path)]
    if not steps:
        return
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    ended = warm.run([str(ROOT / "tests" / "docs" / "driver.py"), "steps.json"], tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("page", PAGES)
def test_quoted_files_are_quoted_whole(page):
    for block in blocks_of(page):
        if block.mark == "quotes":
            assert block.text == (ROOT / block.note).read_text(), block.note


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), target
