"""Peak memory of a training step on the CPU, beyond the plain step's, in copies of the quantized weights.

A process for each variant: large Linear layers, two rows of input, so that the weights are all that counts. The
peak is the kernel's (VmHWM). Two views: of whole steps after the first, and of the forward alone. In a network with
large activations it is the forward's end that has the peak; in this one gradients come as the noisy weights go, so
the step's is lower.

    python -m benchmarks.memory WHOSE NOISE PAIRS      # with scripts/ in PYTHONPATH: what one process measures
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .common import MB, SKIPPED, Context, Part, Row, at_most
from .variants import HERE, PLAIN, THEIRS, Trainee, Variant, wanted

SCRIPTS = Path(__file__).parents[1]
RESET = Path("/proc/self/clear_refs")
WIDE, NARROW = 2048, 1024  # a layer has 8 MB
PAIRS = 4  # of layers, 64 MB
COPIES = 2.0  # of the quantized weights: the noisy ones, and one more
VARIANTS = (Variant(PLAIN), Variant(HERE, "gaussian"), Variant(HERE, "uniform"), Variant(THEIRS, "gaussian"))
VIEWS = {"step": "peak of a training step", "forward": "peak of the forward alone"}


def memory(context: Context) -> Part:
    """Rows for both views and both noises."""
    context.say("peak memory of a training step, a process for each variant")
    if not os.access(RESET, os.W_OK):
        return Part([Row("memory in training", f"{SKIPPED}: needs Linux's {RESET}", SKIPPED, f"<= {COPIES:g}")])
    pairs = 1 if context.quick else PAIRS
    peaks = {one.name: peaks_of(one, pairs) for one in wanted(context, *VARIANTS)}
    rows = [_row(view, noise, peaks) for view in VIEWS for noise in ("gaussian", "uniform")]
    learned = peaks[VARIANTS[1].name]["learned"]
    weights = peaks[PLAIN]["weights"] / MB
    note = (
        f"Memory in copies of the {weights:.0f} MB of weights; logits, their gradients and Adam's "
        f"two moments, {learned:.2f} copies at group size 8, are part of the step's."
    )
    return Part(rows, {"peaks": peaks}, [note])


def _row(view: str, noise: str, peaks: dict[str, dict[str, float]]) -> Row:
    def copies(whose: str) -> float | None:
        found, plain = peaks.get(Variant(whose, noise).name), peaks[PLAIN]
        return None if found is None else (found[view] - plain[view]) / plain["weights"]

    ours, theirs = copies(HERE), copies(THEIRS)
    assert ours is not None
    beside = (SKIPPED if noise == "gaussian" else "") if theirs is None else f"{theirs:.2f}"
    what = f"{VIEWS[view]} beyond plain's, CPU, copies of the quantized weights, {noise}, group 8"
    return Row(what, f"{ours:.2f}", beside, **at_most(ours, COPIES), detail={"copies": ours, "diffq": theirs})


def peaks_of(variant: Variant, pairs: int) -> dict[str, float]:
    """What a process of its own measures: bytes of "step", "forward", "weights"; "learned" in copies of those."""
    command = [sys.executable, "-m", "benchmarks.memory", variant.whose, variant.noise, str(pairs)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])}
    env["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # what is freed goes back to the system: no old pages in the peak
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {variant.name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


# ---- inside that process ----------------------------------------------------------------------------------------


def measure(variant: Variant, pairs: int) -> dict[str, float]:
    device = torch.device("cpu")
    warm = _trainee(variant, 1, 64, device)
    for _ in range(2):  # code and threads come in
        warm.step()
    empty = _status("VmRSS")
    trainee = _trainee(variant, pairs, WIDE, device)
    before = _status("VmRSS")
    forward = _peak(trainee.loss)  # the first, when there is nothing yet that was freed
    trainee.step()
    step = _peak(lambda: [trainee.step() for _ in range(3)])
    weights = float(2 * pairs * 4 * WIDE * NARROW)
    learned = 4 * (sum(param.nbytes for param in trainee.model.parameters()) / weights - 1)
    return {"step": step - empty, "forward": forward - before, "weights": weights, "learned": learned}


def _trainee(variant: Variant, pairs: int, wide: int, device: torch.device) -> Trainee:
    narrow = wide * NARROW // WIDE
    layers = [nn.Linear(*ends, bias=False) for _ in range(pairs) for ends in ((narrow, wide), (wide, narrow))]
    rows = torch.randn(2, narrow)
    return Trainee(variant, nn.Sequential(*layers), lambda model: model(rows).square().mean(), device, min_size=0)


def _peak(call: Callable[[], Any]) -> float:
    """Peak bytes of this process during the call."""
    RESET.write_text("5")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return peak


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024.0 * int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


if __name__ == "__main__":
    print(json.dumps(measure(Variant(sys.argv[1], sys.argv[2]), int(sys.argv[3]))))
