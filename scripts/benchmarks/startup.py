"""What a run costs beside its training: --help, a mistake in the command, and a digits run minus its epochs.

Each is a process as a user starts it, in a temporary folder, without OMP_NUM_THREADS; one of each is not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from .common import ONCE, Context, Part, Rounds, Row, Spread, at_most

TRAIN = (sys.executable, "-m", "diffq_exp.train")
HELP, MISTAKE = "--help", "a mistyped key"
SHORT: dict[str, tuple[tuple[str, ...], int]] = {
    HELP: (("--help",), 0),
    MISTAKE: (("epohcs=3",), 2),
}  # name -> arguments, exit code
DIGITS = {  # name -> arguments of a run
    "a digits run, W&B offline": ("tracking=wandb", "tracking.mode=offline"),
    "a digits run, no tracking": ("tracking=none",),
}
ROUNDS = Rounds(warm=1, least=3, most=3, seconds=0)


def startup(context: Context) -> Part:
    """Rows for all of them; diffq has no commands."""
    context.say("start-up and the fixed cost of a run")
    rounds = ONCE if context.quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        calls = {name: partial(wall, words, code, Path(folder)) for name, (words, code) in SHORT.items()}
        runs = {name: partial(beside_epochs, words, Path(folder)) for name, words in DIGITS.items()}
        seconds = {**rounds.run(calls), **rounds.run(runs)}
    spreads = {name: Spread.of(values) for name, values in seconds.items()}
    rows = [
        _row(name if name in SHORT else f"{name}, beside its epochs", spread, 1.0 if name in SHORT else 5.0)
        for name, spread in spreads.items()
    ]
    return Part(rows, {"seconds": seconds}, ["The seconds of epochs are those in metrics.jsonl, training only."])


def _row(what: str, spread: Spread, limit: float) -> Row:
    return Row(what, spread.show(" s"), **at_most(spread.median, limit, " s"), detail=asdict(spread))


def wall(words: tuple[str, ...], code: int, folder: Path) -> float:
    """Seconds of a process of the entry point; RuntimeError unless it ends with `code`."""
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    started = time.perf_counter()
    done = subprocess.run([*TRAIN, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds


def beside_epochs(words: tuple[str, ...], folder: Path, epochs: int = 2) -> float:
    """Seconds of a digits run in a fresh folder, less those of its epochs."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        seconds = wall((*words, f"epochs={epochs}", f"hydra.run.dir={run}"), 0, folder)
        rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == epochs
    return seconds - float(sum(row["seconds"] for row in rows))
