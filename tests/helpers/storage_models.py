"""Small networks with quantizers to store, and what is said to files that cannot be loaded into them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.quant_models import (
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
from helpers.quant_reference import Setting, logits_for, named_logits, stored_bits
from helpers.stored_files import Parts, as_version2, changed, parts_of, put_together
from torch import nn

from diffq_exp import storage
from diffq_exp.quant import LSQ, DiffQuantizer, RateQuantizer, StoredModel, UniformQuantizer

__all__ = [
    "WAYS", "Bag", "Mixed", "Net", "Parts", "Setting", "Tied", "UserNet", "as_seen", "as_version2", "assert_same",
    "attached", "changed", "diffq", "good_file", "images", "named_logits", "network", "parts_of", "put_together",
    "refusal", "refused_or_loaded", "same_bits", "same_content", "same_stored", "scramble", "snapshot",
    "stored_bits", "weights_of", "wide",
]  # fmt: skip

PATIENCE = 2.0  # seconds of CPU for one file


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
    "rate": lambda model: RateQuantizer(model, step=1.5),
    "none": lambda model: None,
}


def attached(way: str, model: nn.Module) -> Any:
    """What to store of `model`, in eval mode: its quantizer, or itself without one."""
    quantizer = WAYS[way](model.eval())
    return model if quantizer is None else quantizer


def network(build: Callable[[], nn.Module] = Net, seed: int = 0) -> nn.Module:
    """With random weights and statistics."""
    return scramble(build(), seed).eval()


def wide(seed: int = 0) -> nn.Module:
    """Large enough that entropy coding is worth its models."""
    return network(lambda: Net(width=64), seed)


def good_file(coding: str) -> bytes:
    """`wide` with most groups of 4 bits; rows conv.weight, norm.weight, head.weight, the biases are float.

    coding "auto": conv.weight is entropy-coded, its levels and its bits, norm.weight is not.
    """
    model, setting = wide(), Setting(group_size=8, min_bits=1)
    quantizer = DiffQuantizer(model, exclude=("*.bias",), **setting.kwargs())
    source = np.random.default_rng(0)
    with torch.no_grad():
        for logits in named_logits(model).values():
            bits = source.choice([1, 3, 4, 5, 15], len(logits), p=[0.02, 0.05, 0.86, 0.05, 0.02])
            logits.copy_(logits_for(torch.from_numpy(bits).double(), setting))
    return storage.serialize(quantizer, {"model": {"name": "net"}, "batch_size": 4}, coding=coding)


# ---- what a stored network should be --------------------------------------------------------------------------


def same_stored(one: StoredModel, other: StoredModel) -> None:
    """Two stored networks are the same to the last bit, and their parts in the same order."""
    assert one.method == other.method and one.tied == other.tied
    assert list(one.tensors) == list(other.tensors)
    for name, a in one.tensors.items():
        b = other.tensors[name]
        for field in ("grid", "shape", "dtype", "group_size", "top"):
            assert getattr(a, field) == getattr(b, field), (name, field)
        assert torch.equal(a.levels.int(), b.levels.int()), name  # a file gives bytes where the widths allow it
        for field in ("bits", "scales"):
            assert same_bits(getattr(a, field), getattr(b, field)), (name, field)
    assert_same(one.floats, other.floats)
    assert_same(one.buffers, other.buffers)


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model without what a quantizer added to it."""
    state = snapshot(model)
    return {name: value for name, value in state.items() if not name.endswith(("_diffq", "_lsq", "_log_step"))}


def as_seen(source: Any, model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of the model with the values that are stored."""
    values = storage.stored_model_of(source).values()
    return {name: value.to(model.state_dict()[name]) for name, value in values.items()}


def same_content(one: bytes, other: bytes) -> None:
    """Two files say the same, whatever the order of their headers."""
    a, b = parts_of(one), parts_of(other)
    assert (a.index, a.plain, list(a.entries)) == (b.index, b.plain, list(b.entries))
    for name in a.entries:
        assert a.entries[name].tobytes() == b.entries[name].tobytes(), name


# ---- files that are refused -------------------------------------------------------------------------------------


def refusal(path: Path, data: bytes | None = None, model: nn.Module | None = None) -> str:
    """What `load` says to a file; it takes no time, and the model stays as it was."""
    if data is not None:
        path.write_bytes(data)
    model = wide(seed=1) if model is None else model
    before, started = snapshot(model), time.process_time()
    with pytest.raises(ValueError) as caught:
        storage.load(path, model)
    assert time.process_time() - started < PATIENCE
    assert_same(snapshot(model), before)
    text = str(caught.value)
    assert str(path) in text and "\n" not in text
    return text


def refused_or_loaded(path: Path, data: bytes, model: nn.Module) -> str | None:
    """What `load` says, if it refuses; it must not raise anything else."""
    path.write_bytes(data)
    before = snapshot(model)
    try:
        storage.load(path, model)
    except ValueError as fault:
        assert_same(snapshot(model), before)
        assert str(path) in str(fault) and "\n" not in str(fault)
        return str(fault)
    return None
