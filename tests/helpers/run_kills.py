"""A program that runs `python -m diffq_exp.train` again and again, and kills it: <signal>:<saves> ... -- <words>

Each start is a fork of this process, which has imported torch (`helpers/warm.py`). A start is sent the signal
after so many checkpoints of its own, and a moment; the last one is left alone. Prints a line of JSON for each: its
exit status, and status and rows that it left.
"""

from __future__ import annotations

import json
import os
import random
import runpy
import sys
import time
from pathlib import Path


def fork_training(words: list[str]) -> int:
    """Start a training in this folder; -> process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sys.argv = ["train", *words]
        os.dup2(os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        runpy.run_module("diffq_exp.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        os._exit(code)


def await_saves(child: int, saves: int) -> int | None:
    """Wait until the checkpoint was replaced so often; -> the exit status of a child that ended before."""
    seen = _stamp()
    until = time.monotonic() + 120
    while saves and time.monotonic() < until:
        time.sleep(0.002)
        if _stamp() != seen:
            saves, seen = saves - 1, _stamp()
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
    return None


def _stamp() -> list[int]:
    return [path.stat().st_mtime_ns for path in Path("outputs").glob("*/checkpoint.pt")]


def left() -> dict[str, object]:
    """What the run's folder says."""
    from diffq_exp.results.run_files import is_locked

    (folder,) = Path("outputs").iterdir()
    rows = folder / "metrics.jsonl"
    return {
        "status": json.loads((folder / "result.json").read_text())["status"],
        "rows": len(rows.read_text().splitlines()) if rows.exists() else 0,
        "locked": is_locked(folder),
    }


def main(arguments: list[str]) -> None:
    cut = arguments.index("--")
    for plan in arguments[:cut]:
        number, saves = map(int, plan.split(":"))
        child = fork_training(arguments[cut + 1 :])
        status = await_saves(child, saves)
        if status is None:
            time.sleep(random.uniform(0, 0.02))
            os.kill(child, number)
            status = os.waitpid(child, 0)[1]
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), **left()}), flush=True)
    status = os.waitpid(fork_training(arguments[cut + 1 :]), 0)[1]
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), **left()}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
