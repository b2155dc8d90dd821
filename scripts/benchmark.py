"""What quantization costs: training, evaluation, memory, start-up, data, growth; beside `diffq` where installed.

    python scripts/benchmark.py [--device cpu|cuda] [--out DIR] [--only PART ...] [--quick]

Prints a Markdown table and writes it as DIR/benchmark.md, with benchmark.json and growth.svg. Under ten minutes on
two cores that have nothing else to do; the parts stand in benchmarks/.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from benchmarks import output
from benchmarks.common import Context, Part
from benchmarks.data_path import data_path
from benchmarks.gpu import gpu
from benchmarks.growth import growth
from benchmarks.memory import memory
from benchmarks.profile_step import profile_step
from benchmarks.ranks import ranks
from benchmarks.startup import startup
from benchmarks.steps import BATCH_32, BATCH_128, evaluation, train_step

from diffq_exp.runs.machine import keep_freed_memory
from diffq_exp.sweeps.cores import cores

PARTS: dict[str, dict[str, Callable[[Context], Part]]] = {  # device -> what is measured, in this order
    "cpu": {
        "train32": partial(train_step, setting=BATCH_32),
        "train128": partial(train_step, setting=BATCH_128),
        "evaluation": evaluation,
        "memory": memory,
        "startup": startup,
        "data": data_path,
        "growth": growth,
        "profile": profile_step,
        "ranks": ranks,
    },
    "cuda": {"gpu": gpu},
}


def run(parts: Sequence[str], context: Context, folder: Path) -> str:
    """Measure these parts and write what they found; -> the Markdown."""
    found, done, text = output.conditions(context), dict[str, Part](), ""
    for name in parts:
        done[name] = PARTS[context.device.type][name](context)
        text = output.write(folder, {**found, "seconds": time.monotonic() - context.started}, done)
    return text


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=list(PARTS), default="cpu", help="cuda: the GPU part")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"), metavar="DIR")
    names = [name for parts in PARTS.values() for name in parts]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all parts work")
    args = parser.parse_args(words)
    parts = [name for name in PARTS[args.device] if not args.only or name in args.only]
    if not parts or (args.only and len(parts) < len(set(args.only))):
        parser.error(f"--device {args.device} has the parts {', '.join(PARTS[args.device])}")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: torch finds no GPU here", file=sys.stderr)
        return 2
    torch.set_num_threads(cores())
    if args.device == "cpu":
        keep_freed_memory()  # as runs do
    print(run(parts, Context(torch.device(args.device), args.quick), args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
