"""Small networks with quantizers to store, and files that say what they should not under a right checksum."""

import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors
from torch import nn

HERE = str(Path(__file__).parent / "quant")
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from quant_models import (  # noqa: E402
    Bag,
    Net,
    Tied,
    assert_same,
    images,
    same_bits,
    scramble,
    set_bits,
    snapshot,
)
from quant_reference import Setting, named_logits, stored_bits  # noqa: E402

from diffq_exp.quant import LSQ, DiffQuantizer, UniformQuantizer  # noqa: E402

__all__ = [
    "WAYS", "Bag", "Mixed", "Net", "Parts", "Setting", "Tied", "UserNet", "assert_same", "attached", "checksum",
    "diffq", "images", "named_logits", "network", "parts_of", "put_together", "same_bits", "snapshot",
    "stored_bits",
]  # fmt: skip


class Mixed(Net):
    """A network with buffers of every kind: integers, booleans, doubles, a scalar, halves."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([3, -1, 2**40]))
        self.register_buffer("mask", torch.tensor([[True, False], [False, True]]))
        self.register_buffer("fine", torch.tensor(1 / 3, dtype=torch.float64))
        self.register_buffer("halves", torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16))
        self.register_buffer("codes", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("left_out", torch.ones(3), persistent=False)
        self.steps = nn.Parameter(torch.arange(3, dtype=torch.int32), requires_grad=False)


class UserNet(nn.Module):
    """A network of a user's own, that no YAML of conf/ names."""

    def __init__(self, num_classes: int, in_channels: int, image_size: int, width: int = 4) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels * image_size**2, width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.hidden(images.flatten(1))))


def diffq(model: nn.Module, seed: int = 0, exclude: tuple[str, ...] = (), **keywords: Any) -> DiffQuantizer:
    """With widths from 1 to 15 bits, all mixed."""
    setting = Setting(min_bits=1, **keywords)
    quantizer = DiffQuantizer(model, exclude=exclude, **setting.kwargs())
    set_bits(model, setting, seed=seed)
    return quantizer


# Every way to store a network: a function that attaches a quantizer (or none) to a model.
WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "diffq whole tensors": lambda model: diffq(model, group_size=0),
    "diffq 1": lambda model: diffq(model, group_size=1),
    "diffq 3, divides": lambda model: diffq(model, group_size=3),
    "diffq 8, tails": lambda model: diffq(model, group_size=8),
    "diffq float16": lambda model: diffq(model, group_size=4, float16=True, min_size=4 * 20 / 2**20),
    "uniform 4": lambda model: UniformQuantizer(model, bits=4, min_size=0),
    "uniform 2.5": lambda model: UniformQuantizer(model, bits=2.5, min_size=0),
    "uniform 15, some floats": lambda model: UniformQuantizer(model, bits=15, min_size=0, exclude=["*.bias"]),
    "lsq 3": lambda model: LSQ(model, bits=3, min_size=0),
    "lsq 15 float16": lambda model: LSQ(model, bits=15, float16=True, min_size=4 * 20 / 2**20),
    "none": lambda model: None,
}


def attached(way: str, model: nn.Module) -> Any:
    """What to store of `model`, in eval mode: its quantizer, or itself without one."""
    quantizer = WAYS[way](model.eval())
    return model if quantizer is None else quantizer


def network(build: Callable[[], nn.Module] = Net, seed: int = 0) -> nn.Module:
    """With random weights and statistics."""
    return scramble(build(), seed).eval()


# ---- files that lie -------------------------------------------------------------------------------------------


@dataclass
class Parts:
    """The content of a stored file, to be changed: payloads by name, the index, the plain metadata."""

    entries: dict[str, np.ndarray]
    index: Any
    plain: dict[str, str]
    index_bytes: bytes | None = None  # in place of the compressed `index`


def parts_of(data: bytes) -> Parts:
    """The content of a file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    plain = {key: value for key, value in sorted(header["__metadata__"].items()) if key != "sha256"}
    entries = dict(sorted(parse_safetensors(data).items()))
    index = json.loads(zlib.decompress(entries.pop("index").tobytes()))
    return Parts(entries, index, plain)


def checksum(entries: dict[str, np.ndarray], plain: dict[str, str]) -> str:
    """SHA-256 over the plain metadata and, in the order of their names, the entries."""
    content = json.dumps(plain, sort_keys=True).encode()
    content += b"".join(name.encode() + entries[name].tobytes() for name in sorted(entries))
    return sha256(content).hexdigest()


def put_together(parts: Parts) -> bytes:
    """The file with a checksum that is right, so that the checks behind it are reached."""
    index = parts.index_bytes
    if index is None:
        index = zlib.compress(json.dumps(parts.index).encode())
    entries = {"index": np.frombuffer(index, np.uint8), **parts.entries}
    return dump_safetensors(entries, {**parts.plain, "sha256": checksum(entries, parts.plain)})
