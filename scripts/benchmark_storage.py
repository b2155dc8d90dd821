"""What stored networks weigh and cost, beside the authors' `diffq` where it is installed: one Markdown table.

    python scripts/benchmark_storage.py [--run FOLDER] [--repeat 5]

Two networks: the default digits run (made anew in a temporary folder, half a minute, or taken from --run), and a
ResNet-18 of 11.2 M gaussian weights whose groups of 8 have 2 to 5 bits. Times are medians of interleaved repeats.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from torch import nn

from diffq_exp import storage
from diffq_exp.models import digits_cnn
from diffq_exp.quant import DiffQuantizer, quantizer_of
from diffq_exp.storage import entropy
from diffq_exp.storage.coding import symbols_of
from diffq_exp.stored.packing import split_widths
from diffq_exp.training.checkpoint import load_checkpoint

MB = 2**20
GROUP_SIZE = 8
THEIRS = importlib.util.find_spec("diffq") is not None
Timed = dict[str, Callable[[], Any]]


def resnet18() -> nn.Module:
    """11.2 M weights: torchvision's, with the stem for small images, gaussian."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    for param in model.parameters():
        if param.dim() > 1:
            nn.init.normal_(param, 0, 0.02)
    return model.eval()


def spread_bits(model: nn.Module, suffix: str = "_diffq", low: float = 1.5, high: float = 5.5) -> None:
    """Give the groups real-valued widths evenly between `low` and `high`: stored ones of 2 to 5."""
    source = torch.Generator().manual_seed(1)
    for name, param in model.named_parameters():
        if name.endswith(suffix):
            bits = torch.rand(param.shape, generator=source) * (high - low) + low
            sigma = ((bits - 2) / 13).clamp(1e-3, 1 - 1e-3)
            param.data.copy_(torch.log(sigma / (1 - sigma)))


def digits_run(folder: Path) -> None:
    """The run that the README begins with."""
    command = [sys.executable, "-m", "diffq_exp.train", "noise=uniform", "group_size=8", "tracking=none"]
    subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, stdout=subprocess.DEVNULL)


def trained_digits(folder: Path) -> nn.Module:
    """The float network of a run with its quantizer."""
    model = digits_cnn(num_classes=10, in_channels=1, image_size=8)
    quantizer = DiffQuantizer(model, group_size=GROUP_SIZE, noise="uniform")
    quantizer.no_optimizer()
    model.load_state_dict(load_checkpoint(folder / "checkpoint.pt")["model"])
    return model.eval()


def their_quantizer(model: nn.Module) -> Any:
    """`diffq`'s quantizer on a model with the weights and logits of ours."""
    from diffq import DiffQuantizer as Theirs

    state = model.state_dict()
    bare = digits_cnn(num_classes=10, in_channels=1, image_size=8) if "conv5.weight" in state else resnet18()
    theirs = Theirs(bare, group_size=GROUP_SIZE)
    theirs.no_optimizer()
    bare.load_state_dict(state)
    bare.eval()
    return theirs


def their_file(quantizer: Any, path: Path) -> None:
    torch.save(quantizer.get_quantized_state(packed=True), path)


def sizes(name: str, model: nn.Module, folder: Path, config: dict[str, Any]) -> list[list[str]]:
    """Rows of what the network weighs: MB, and its ratio to the paper's formula."""
    quantizer = quantizer_of(model)
    assert quantizer is not None
    true = quantizer.true_model_size()
    rows = [[f"{name}: size_mb.true, the paper's formula", f"{true:.4f} MB", ""]]
    for options in ({"coding": "packed"}, {}, {"float": "float16"}, {"float": "int8", "fold": True}):
        size = storage.save(quantizer, folder / "ours.safetensors", config, **options) / MB
        asked = " ".join(f"{key}={value}" for key, value in options.items()) or "as it comes"
        rows.append([f"{name}: file, {asked}", f"{size:.4f} MB", f"{size / true:.3f}"])
    if THEIRS:
        theirs = their_quantizer(model)
        their_file(theirs, folder / "theirs.pt")
        size = (folder / "theirs.pt").stat().st_size / MB
        rows.append([f"{name}: diffq's file", f"{size:.4f} MB", f"{size / theirs.true_model_size():.3f}"])
    return rows


def medians(calls: Timed, repeat: int) -> dict[str, float]:
    """Median seconds of each call; the calls take turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeat + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def times(model: nn.Module, folder: Path, repeat: int) -> list[list[str]]:
    """Rows of seconds to save and to load; in the last column how many times as fast as diffq."""
    fresh, calls = resnet18(), dict[str, Callable[[], Any]]()
    for coding in ("packed", "auto"):
        path = folder / f"{coding}.safetensors"
        calls[f"save, coding={coding}"] = lambda path=path, coding=coding: storage.save(model, path, coding=coding)
        calls[f"load, coding={coding}"] = lambda path=path: storage.load(path, fresh)
    if THEIRS:
        theirs, path = their_quantizer(model), folder / "theirs.pt"
        calls["save, diffq"] = lambda: their_file(theirs, path)
        calls["load, diffq"] = lambda: theirs.restore_quantized_state(torch.load(path, weights_only=False))
    taken = medians(calls, repeat)
    rows = []
    for name, seconds in taken.items():
        reference = taken.get(f"{name.partition(',')[0]}, diffq")
        rows.append([f"ResNet-18: {name}", f"{seconds:.3f} s", f"{reference / seconds:.1f} x" if reference else ""])
    return rows


def coder_speed(model: nn.Module, repeat: int) -> list[list[str]]:
    """Rows of the entropy coder alone, models included: MB of float32 weights a second."""
    quantizer = quantizer_of(model)
    assert quantizer is not None
    runs, weights = [], 0
    for tensor in quantizer.stored_model().tensors.values():
        split = split_widths(tensor.levels.numpy(), tensor.bits.numpy(), tensor.group_size)
        runs.append([(run, symbols_of(width, tensor.top)) for width, run in split])
        weights += tensor.levels.numel()
    coded = [entropy.encode(run) for run in runs]
    arrays = [[torch.frombuffer(bytearray(part), dtype=torch.uint8).numpy() for part in parts] for parts in coded]
    counts = [[(len(run), symbols) for run, symbols in tensor] for tensor in runs]
    taken = medians(
        {
            "encoding": lambda: [entropy.encode(run) for run in runs],
            "decoding": lambda: [
                entropy.decode(*parts, count) for parts, count in zip(arrays, counts, strict=True)
            ],
        },
        repeat,
    )
    return [
        [f"ResNet-18: entropy {name}", f"{4 * weights / MB / taken[name]:.0f} MB/s of float weights", ""]
        for name in taken
    ]


def peak_growth(what: str, coding: str, path: Path) -> float:
    """MB by which the peak memory of a process grows while it saves or loads the ResNet-18 (Linux)."""
    command = [sys.executable, __file__, "--peak", what, coding, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_peak(what: str, coding: str, path: str) -> None:
    """The inside of `peak_growth`: a small network brings in code and threads, then the model alone counts."""
    model = resnet18()
    if what == "save":
        DiffQuantizer(model, group_size=GROUP_SIZE).no_optimizer()
        spread_bits(model)
    small = nn.Linear(64, 64)
    DiffQuantizer(small, min_size=0, group_size=GROUP_SIZE).no_optimizer()
    storage.save(small, f"{path}.small", coding=coding)
    storage.load(f"{path}.small", nn.Linear(64, 64))
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now the memory at this moment
    if what == "save":
        storage.save(model, path, coding=coding)
    else:
        storage.load(path, model)
    print((_status("VmHWM") - before) / MB)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


def memory(model: nn.Module, folder: Path) -> list[list[str]]:
    """Rows of peak memory beyond the model; in the last column, in units of its largest tensor."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return [["ResNet-18: peak memory", "skipped: needs Linux's /proc/self/clear_refs", ""]]
    largest = max(param.nbytes for param in model.parameters()) / MB
    rows = []
    for coding in ("packed", "auto"):
        for what in ("save", "load"):
            grown = peak_growth(what, coding, folder / f"peak-{coding}.safetensors")
            name = f"ResNet-18: peak memory of {what}, coding={coding}, beyond the model"
            rows.append([name, f"{grown:.1f} MB", f"{grown / largest:.2f} of the largest tensor"])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="a finished run of the default digits, noise=uniform group_size=8")
    parser.add_argument("--repeat", type=int, default=5, help="repeats of what is timed")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        measure_peak(*args.peak)
        return 0
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        folder = Path(name)
        if args.run is None:
            digits_run(folder / "run")
        run = args.run or folder / "run"
        _, config = storage.read(run / "model.safetensors")
        large = resnet18()
        DiffQuantizer(large, group_size=GROUP_SIZE).no_optimizer()
        spread_bits(large)
        rows = sizes("digits", trained_digits(run), folder, config) + sizes("ResNet-18", large, folder, {})
        rows += times(large, folder, args.repeat) + coder_speed(large, args.repeat) + memory(large, folder)
    if not THEIRS:
        rows.append(["diffq", "skipped: not installed (pip install diffq==0.2.4)", ""])
    for line in [["what", "measured", "ratio"], ["---"] * 3, *rows]:
        print(f"| {' | '.join(line)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
