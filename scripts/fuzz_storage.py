"""Break stored networks at random, and see that loading them fails well.

    python scripts/fuzz_storage.py [--files 20000] [--seed 0] [--keep FOLDER]

Good files of both formats and codings and of every quantizer are damaged as bytes (flips, cuts, insertions, regions
that change places, other words in the header), or made to lie under a right checksum (payloads, index, lengths).
Each is loaded into a network: it is loaded, or refused by a ValueError of one line that names the file, with the
network as it was, in 5 seconds and 500 MB. Anything else is a failure: the file is kept, its seed printed, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from storage_damage import KINDS, as_version2
from torch import Tensor, nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer

SECONDS, MEGABYTES = 5.0, 500


class Net(nn.Module):
    """Convolution, norm, tied linear layers, a buffer of integers: 4,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 32, 5), nn.BatchNorm2d(32)
        self.one, self.other = nn.Linear(32, 32), nn.Linear(32, 32)
        self.other.weight = self.one.weight
        self.register_buffer("order", torch.tensor([3, -1, 2**40]))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Net().eval()


def diffq(model: nn.Module, group_size: int) -> DiffQuantizer:
    """With learned widths that differ, most of them alike."""
    quantizer = DiffQuantizer(model, group_size=group_size, min_size=0, exclude=["*.bias"])
    with torch.no_grad():
        for logits in quantizer.learned().values():
            logits.copy_(-1.5 + 0.7 * torch.randn_like(logits))
    return quantizer


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "diffq 8": lambda model: diffq(model, 8),
    "diffq 1": lambda model: diffq(model, 1),
    "diffq whole": lambda model: diffq(model, 0),
    "uniform 3": lambda model: UniformQuantizer(model, bits=3, min_size=0),
    "uniform 2.5": lambda model: UniformQuantizer(model, bits=2.5, min_size=0, exclude=["*.bias"]),
    "lsq 4": lambda model: LSQ(model, bits=4, min_size=0),
    "none": lambda model: None,
}


def good_files() -> dict[str, bytes]:
    files = {}
    for way, attach in WAYS.items():
        model = network(0)
        attach(model)
        for coding in ("auto", "packed"):
            files[f"{way}, {coding}"] = storage.serialize(model, {"model": {"name": "net"}}, coding=coding)
        small = storage.serialize(model, {"model": {"name": "net"}}, float="int8", fold=True)
        files |= {f"{way}, small": small, f"{way}, format 2": as_version2(files[f"{way}, auto"])}
    return files


# ---- the loop -------------------------------------------------------------------------------------------------


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(
        torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def peak_mb() -> float:
    """The largest memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def outcome(path: Path, model: nn.Module) -> tuple[str, str]:
    """-> "loaded", "refused" or what is wrong; and what was said."""
    before, started, memory = state_of(model), time.monotonic(), peak_mb()
    said = ""
    try:
        storage.load(path, model)
    except ValueError as fault:
        said = str(fault)
        if str(path) not in said or "\n" in said:
            return "a message without the path, or of lines", said
        if not same(state_of(model), before):
            return "refused, but the network is changed", said
    except BaseException as fault:
        if isinstance(fault, KeyboardInterrupt):
            raise
        return f"raised {type(fault).__name__}", str(fault)
    if (seconds := time.monotonic() - started) > SECONDS:
        return f"took {seconds:.1f} s", said
    if (grown := peak_mb() - memory) > MEGABYTES:
        return f"took {grown:.0f} MB", said
    return "refused" if said else "loaded", said


def fuzz(files: int, seed: int, keep: Path) -> tuple[Counter[tuple[str, str]], list[str]]:
    """-> how many files of each kind had which outcome, and a line for each failure."""
    good, counts, failures = list(good_files().items()), Counter[tuple[str, str]](), list[str]()
    models = {way: network(1) for way in WAYS}
    for way, attach in WAYS.items():
        attach(models[way])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        for number in range(files):
            source = random.Random(f"{seed}/{number}")
            name, data = source.choice(good)
            kind = source.choice(list(KINDS))
            path.write_bytes(damaged := KINDS[kind](data, source))
            model = source.choice([models[name.split(",")[0]], models["none"]])
            found, said = outcome(path, model)
            counts[kind, found if found in ("loaded", "refused") else "FAILED"] += 1
            if found not in ("loaded", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (kept := keep / f"fuzz-{seed}-{number}.safetensors").write_bytes(damaged)
                failures.append(f"{kept}: {name}, {kind}: {found}: {said[:300]!r}")
    return counts, failures


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="where files that fail are kept")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    started = time.monotonic()
    counts, failures = fuzz(given.files, given.seed, given.keep)
    print(f"{'':28}{'loaded':>9}{'refused':>9}{'FAILED':>9}")
    for kind in KINDS:
        print(f"{kind:28}" + "".join(f"{counts[kind, found]:9,}" for found in ("loaded", "refused", "FAILED")))
    print(
        f"{given.files:,} files, seed {given.seed}: {time.monotonic() - started:.0f} s, {peak_mb():.0f} MB at most"
    )
    for line in failures:
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
