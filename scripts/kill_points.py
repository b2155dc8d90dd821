"""Kill a run before each of its operations on files, and see that the same command then ends it well.

    python scripts/kill_points.py [--kinds run,restart] [--every 1] [--damage cut]

A first process of each kind of run lists its operations: what it opens for writing, renames, removes, makes, cuts
and sends to the disk. Then, for each of them, a process ends just before it, as by SIGKILL, and the same command is
given again. It has to end with the same code and the same files, byte for byte but for times, and with nothing
left over; and a network that was finished before has to be there all the time.

--damage: what a power loss may do besides to the file that was written last: `cut` to its half, filled with
`zeros`, or `gone`. The command may then also end with one line that names this file.
--every: only each n-th operation of a kind, from a place that differs from kind to kind.

Each process is a fork of this one, which has imported torch and composed the command. Exit code 1 after a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from file_operations import KILLED
from killed_runs import BROKEN, KINDS, MODEL, Command, Failure, Kind, Place, check, damaged, train

MODULES = (
    "torch._dynamo", "diffq_exp.sweeps.launch", "diffq_exp.command.check", "diffq_exp.runs.run",
    "diffq_exp.runs.loading", "diffq_exp.quant.kernels.cpu.kernels", "diffq_exp.storage.contexts",
)  # fmt: skip
OF_TIME = ("seconds", "examples_per_second", "ended", "run_id")
ONLY_NAMES = (".lock", "train.log", "checkpoint.pt")  # times stand in these


# ---- what is compared --------------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, Any]:
    """Every file and folder below a folder, with what two equal runs share of it."""
    return {str(path.relative_to(root)): shared(path) for path in sorted(root.rglob("*"))}


def shared(path: Path) -> Any:
    if path.is_dir() or path.name in ONLY_NAMES:
        return None
    if path.suffix == ".json":
        return timeless(path.read_text())
    if path.suffix == ".jsonl":
        return [timeless(line) for line in path.read_text().splitlines()]
    return path.read_bytes()


def timeless(text: str) -> dict[str, Any]:
    return {key: value for key, value in json.loads(text).items() if key not in OF_TIME}


def differences(got: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    left = [f"{name} is left over" for name in got.keys() - wanted.keys()]
    lost = [f"{name} is missing" for name in wanted.keys() - got.keys()]
    return left + lost + [f"{name} differs" for name in got.keys() & wanted.keys() if got[name] != wanted[name]]


def finished_networks(root: Path) -> list[bytes]:
    """The stored networks, if there is a record that says finished; a kill may have come while both were moved."""
    statuses = [json.loads(path.read_text())["status"] for path in root.rglob("result.json")]
    return [path.read_bytes() for path in root.rglob(MODEL)] if "finished" in statuses else []


# ---- damage by a power loss --------------------------------------------------------------------------------------


def damage(root: Path, how: str) -> str:
    """Damage the file that was written last; -> its name."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != ".lock"]
    if not files:
        return "-"
    newest = max(files, key=lambda path: path.stat().st_mtime_ns)
    content = newest.read_bytes()
    if how == "gone":
        newest.unlink()
    else:
        newest.write_bytes(content[: len(content) // 2] if how == "cut" else bytes(len(content)))
    return newest.name


# ---- all together ------------------------------------------------------------------------------------------------


class Tried:
    """A kind of run: its start, its end where nothing kills it, and the operations in between."""

    def __init__(self, kind: Kind, folder: Path, command: Command = train) -> None:
        self.kind, self.place = kind, Place(folder, command)
        self.place.root.mkdir(parents=True)
        kind.start(self.place)
        self.finished = finished_networks(self.place.root) if kind.start is not damaged else []
        self.place.keep("start")
        self.code = self.place.give(kind.words)
        check(self.code != BROKEN, self.place.said)
        self.end, self.operations = tree(self.place.root), self.place.operations

    def kill(self, point: int, how: str | None = None) -> None:
        """Kill before an operation, and give the command again. how: see `damage`. Raises: Failure."""
        self.place.bring("start")
        code = self.place.give(self.kind.words, stop_at=point)
        check(code == KILLED, f"it ended with {code}, where it should have been killed")
        kept = finished_networks(self.place.root)
        check(all(network in kept for network in self.finished), "the network that was finished is lost")
        name = damage(self.place.root, how) if how else None
        code = self.place.give(self.kind.again or self.kind.words)
        if name and code in (1, 2) and name in self.place.said and "Traceback" not in self.place.said:
            return
        check(code == self.code, f"the same command ends with {code}, not {self.code}: {self.place.said[-300:]}")
        problems = differences(tree(self.place.root), self.end)
        if self.kind.again is not None:  # which .hydra/ has
            problems = [text for text in problems if "/.hydra/" not in text]
        check(not problems, "; ".join(problems[:4]))


def try_kind(name: str, first: int, every: int, how: str | None, command: Command = train) -> tuple[int, int]:
    """Kill before each n-th operation from a first one on; -> how many kills, and how many of them failed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tried, failed = Tried(KINDS[name], Path(folder).resolve() / "kind", command), 0
        points = range(first, len(tried.operations) + 1, every)
        for point in points:
            try:
                tried.kill(point, how)
            except Failure as failure:
                failed += 1
                print(f"{name}: killed before {point}, {tried.operations[point - 1]}: {failure}", flush=True)
        os.chdir("/")
    seconds = time.monotonic() - began
    print(f"{name}: {len(tried.operations)} operations, {len(points)} kills, {failed} failed; {seconds:.0f} s")
    return len(points), failed


def main(argv: list[str], command: Command = train) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of runs, with commas between them")
    parser.add_argument("--every", type=int, default=1, help="only each n-th operation")
    parser.add_argument("--damage", choices=("cut", "zeros", "gone"), help="to the file that was written last")
    options = parser.parse_args(argv)
    for module in MODULES:
        importlib.import_module(module)
    importlib.import_module("torch").set_num_threads(1)
    kills = failed = 0
    for number, name in enumerate(options.kinds.split(",")):
        more, bad = try_kind(name, 1 + number % options.every, options.every, options.damage, command)
        kills, failed = kills + more, failed + bad
    print(f"{kills} kills, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
