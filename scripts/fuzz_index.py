"""Lie in the index of stored networks, under a right checksum, and see that every reader answers well.

    python scripts/fuzz_index.py [--files 3000] [--seed 0] [--keep FOLDER]

The index says names, shapes, codings, ties and the configuration that a network is built by. One to five of its
values become others: of another type, size or sign, longer, deeper, twice, gone, under another key; or its text has
another encoding. Each file goes to a reader: `storage.load` into its network, `load_model`, the ledger, commands
export (to a state_dict) and evaluate. It is read, or refused by a line that names the file, in 2 seconds of CPU and
700 MB. Anything else is a failure: the file is kept, its seed and number printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fuzz_storage import WAYS, network, peak_mb
from helpers.stored_networks import config
from index_lies import lied
from torch import nn

from diffq_exp import evaluate, export, load_model, models, storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, UniformQuantizer
from diffq_exp.storage.ledger import ledger

SECONDS, MEGABYTES = 2.0, 700
Files = dict[str, tuple[bytes, Callable[[], nn.Module]]]  # {name: a file, and a function that makes its network}
DIGITS: dict[str, Callable[[nn.Module], object]] = {
    "diffq": lambda model: DiffQuantizer(model, group_size=8),
    "lsq": lambda model: LSQ(model, bits=3, per_channel=True),
    "rate": RateQuantizer,
    "none": lambda model: None,
}


# ---- good files -----------------------------------------------------------------------------------------------


def told(group: str, keys: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run with a network of conf/model/."""
    conf = config()
    conf["model"] = {"name": group, "node": {"_target_": f"diffq_exp.models.{group}", **node}, "keys": keys}
    return conf


def good_files() -> Files:
    """Of every quantizer, and of networks that libraries make; not all of them can be built or measured."""
    files = Files()
    for way, attach in WAYS.items():
        attach(model := network(0))
        files[way] = storage.serialize(model, config()), lambda: network(1)
    images, text = {"num_classes": 4, "in_channels": 1, "image_size": 32}, {"vocabulary": 16, "length": 8}
    made: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], dict[str, Any]]] = {
        "gpt": (models.gpt, text, {"layers": 2, "width": 16, "heads": 2, "dropout": 0.0}),
        "torchvision": (models.torchvision, images, {"name": "squeezenet1_1", "pretrained": False}),
        "vit_small": (models.digits_cnn, images, {}),  # not what it says
    }
    for name, (make, keys, node) in made.items():
        model = make(**keys, **node).eval()
        UniformQuantizer(model, bits=3, min_size=0)
        files[name] = storage.serialize(model, told(name, keys, node)), partial(make, **keys, **node)
    return files | digits_files()


def digits_files(coding: str = "auto") -> Files:
    """Of a network that every reader can build and measure."""
    digits, files = partial(models.digits_cnn, **config()["model"]["keys"]), Files()
    for way, attach in DIGITS.items():
        attach(model := digits().eval())
        files[f"digits_cnn, {way}"] = storage.serialize(model, config(), coding=coding), digits
    return files


# ---- readers --------------------------------------------------------------------------------------------------


def by_command(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Raises: ValueError with what a command said when its exit code is 2."""
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(words)
    if code:
        raise ValueError(said.getvalue().rstrip("\n"))


def readers(path: Path, make: Callable[[], nn.Module]) -> dict[str, Callable[[], object]]:
    out = str(path.with_name("out.safetensors"))
    return {
        "load": lambda: storage.load(path, make()),
        "load_model": lambda: load_model(path),
        "ledger": lambda: ledger(path),
        "export": lambda: by_command(export.main, [str(path), "--to", "state_dict", "--out", out]),
        "evaluate": lambda: by_command(evaluate.main, [str(path), "--device", "cpu"]),
    }


def outcome(path: Path, read: Callable[[], object]) -> tuple[str, str]:
    """-> "read", "refused" or what is wrong; and what was said."""
    started, memory, said = time.process_time(), peak_mb(), ""
    try:
        read()
    except ValueError as fault:
        said = str(fault)
        if str(path) not in said or "\n" in said or len(said) > 2500:
            return "a message without the path, of lines, or long", said
    except Exception as fault:
        return f"raised {type(fault).__name__}", traceback.format_exc()[-1500:]
    if (seconds := time.process_time() - started) > SECONDS:
        return f"took {seconds:.1f} s", said
    if (grown := peak_mb() - memory) > MEGABYTES:
        return f"took {grown:.0f} MB", said
    return "refused" if said else "read", said


def fuzz(files: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """-> how many files of each kind and reader had which outcome, and a line for each failure."""
    good, counts, failures = list(good_files().items()), Counter[tuple[str, str]](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for _, (data, make) in good:  # what a process does once takes no time later
            path.write_bytes(data)
            for read in readers(path, make).values():
                outcome(path, read)
        for number in range(files):
            source = random.Random(f"{seed}/{number}")
            name, (data, make) = source.choice(good)
            kind, damaged = lied(data, source)
            path.write_bytes(damaged)
            reader, read = source.choice(list(readers(path, make).items()))
            found, said = outcome(path, read)
            for row in (kind, reader):
                counts[row, found if found in ("read", "refused") else "FAILED"] += 1
            if found not in ("read", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (kept := keep / f"index-{seed}-{number}.safetensors").write_bytes(damaged)
                failures.append(f"{kept}: {name}, {kind}, {reader}: {found}: {said[-1500:]}")
    return counts, failures


KINDS = ("index", "configuration", "encoding", "ties", "load", "load_model", "ledger", "export", "evaluate")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="where files that fail are kept")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    counts, failures = fuzz(given.files, given.seed, given.keep)
    print(f"{'':28}{'read':>9}{'refused':>9}{'FAILED':>9}")
    for kind in KINDS:
        print(f"{kind:28}" + "".join(f"{counts[kind, found]:9,}" for found in ("read", "refused", "FAILED")))
    print(f"{given.files:,} files, seed {given.seed}: {peak_mb():.0f} MB at most")
    for line in failures:
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
