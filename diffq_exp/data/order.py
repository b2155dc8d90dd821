"""Which example comes when: seeds, shuffles and batches as pure functions of numbers.

Each random draw has a generator of its own, seeded by a hash of its purpose and of (seed, epoch, batch or example).
A stream from a single generator would have to be replayed to resume. These draws start at any place, in any number
of workers, and leave the global generators of torch, numpy and Python alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


def derive_seed(purpose: str, *numbers: int) -> int:
    """A seed in [0, 2**32) from a purpose and any integers.

    Hashed, since neighbouring seeds start alike in a Mersenne Twister; 32 bits, since torch's CPU generator
    takes no more of a seed than that.
    """
    text = ":".join([purpose, *(str(int(number)) for number in numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def generator(purpose: str, *numbers: int) -> torch.Generator:
    """A fresh CPU generator: on the CPU, the same numbers come for a training device of any kind."""
    return torch.Generator().manual_seed(derive_seed(purpose, *numbers))


@contextmanager
def seeded_globally(purpose: str, *numbers: int) -> Iterator[None]:
    """Seed torch's global CPU generator for code that knows no other (torchvision), then put it back.

    Not by torch.manual_seed, which would seed the generators of GPUs as well.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(purpose, *numbers))
        yield


def shuffled(examples: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of range(examples), (examples,) int64 on the CPU."""
    return torch.randperm(examples, generator=generator("order", seed, epoch))


@dataclass(frozen=True)
class Batches:
    """The cut of `examples` into batches of `batch_size`; the last one may be short.

    With `fold_single`, a last batch of a single example, on which batch norm cannot train, is joined to the
    batch before it: every example is still seen once.
    """

    examples: int
    batch_size: int
    fold_single: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} is not at least 1")
        if self.examples < 1:
            raise ValueError("a part of the data set is empty")

    def __len__(self) -> int:
        full, rest = divmod(self.examples, self.batch_size)
        folded = self.fold_single and rest == 1 and full > 0
        return full + (rest > 0) - folded

    def bounds(self, batch: int) -> tuple[int, int]:
        """First and one-past-last position of a batch within the order."""
        last = batch == len(self) - 1
        return batch * self.batch_size, self.examples if last else (batch + 1) * self.batch_size

    def starting_at(self, first_batch: int) -> range:
        """The batches from `first_batch` on; `len(self)` of them are none."""
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"first_batch={first_batch} is not in 0..{len(self)}, the batches of an epoch")
        return range(first_batch, len(self))
