"""Text as a sequence of tokens, cut into windows: the last tenth for validation, the twentieth before it for test.

A training epoch shuffles windows that do not overlap; where the first of them begins is drawn anew for each epoch,
so that a token comes once in an epoch, in another context each time. Validation and test go through their tokens
in order, every token but the first being predicted once. All tokens stay on the training device.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.names import shown_path
from .base import Data
from .digest import of_tensors
from .order import Batches, generator, shuffled
from .shares import WHOLE, Share

BYTES = 256


class WindowLoader:
    """Batches of windows of a sequence: inputs (B, length) int64, targets likewise, one token later.

    With `train`, the phase and the order are functions of (seed, epoch), and tokens at either end may be left out.
    Without it, windows come in order, and a shorter last window is a batch of its own.
    """

    def __init__(
        self, tokens: Tensor, *, length: int, batch_size: int, device: torch.device | str, seed: int, train: bool
    ) -> None:
        """`tokens`: (N,) of any integer type, at least 2 * length to train on, else at least 2."""
        steps = len(tokens) - 1  # predictions
        full = (steps - (length - 1 if train else 0)) // length
        self.batch_size, self._length, self._seed, self._train = batch_size, length, seed, train
        self._rest = 0 if train else steps - full * length
        self._full = full
        self._batches = Batches(full, batch_size) if full else None
        self.examples = full + (self._rest > 0)
        self._tokens, self._share = tokens.to(device), WHOLE

    def share(self, share: Share) -> WindowLoader:
        """See `Shareable`; the tokens stay where they are."""
        part = copy.copy(self)
        part._share = share
        return part

    def __len__(self) -> int:
        return (len(self._batches) if self._batches else 0) + (self._rest > 0)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"first_batch={first_batch} is not in 0..{len(self)}, the batches of an epoch")
        return self._windows(epoch, range(first_batch, len(self)))

    def _windows(self, epoch: int, batches: range) -> Iterator[tuple[Tensor, Tensor]]:
        starts = self._starts(epoch).to(self._tokens.device)
        offsets = torch.arange(self._length + 1, device=self._tokens.device)
        for batch in batches:
            if self._batches is None or batch == len(self._batches):
                start, stop = self._share.cut(0, 1)
                window = self._tokens[self._full * self._length :][None].long()[start:stop]  # (1, rest + 1)
            else:
                first, last = self._share.cut(*self._batches.bounds(batch))
                window = self._tokens[starts[first:last, None] + offsets].long()  # (B, length + 1)
            yield window[:, :-1], window[:, 1:]

    def _starts(self, epoch: int) -> Tensor:
        """Where each window of an epoch begins, (windows,) int64 on the CPU."""
        if not self._train:
            return torch.arange(self._full) * self._length
        draws = generator("phase", self._seed, epoch)
        phase = torch.randint(self._length, (1,), generator=draws)
        return phase + self._length * shuffled(self._full, self._seed, epoch)


@dataclass(frozen=True)
class Windows:
    """How token sequences become loaders."""

    length: int  # tokens that a model sees at once
    batch_size: int
    device: torch.device | str
    seed: int

    def loader(self, where: str, tokens: Tensor, train: bool = False) -> WindowLoader:
        """Raises: ValueError when there are too few tokens; `where` names them."""
        needed = 2 * self.length if train else 2
        if len(tokens) < needed:
            raise ValueError(f"{where}: {len(tokens):,} tokens are too few, {needed:,} are needed at this length")
        return WindowLoader(
            tokens, length=self.length, batch_size=self.batch_size, device=self.device, seed=self.seed, train=train
        )


class TextData(Data):
    """Windows (B, length) int64 of tokens, and the tokens that follow each.

    vocabulary: how many tokens there are.  token_bytes: the bytes that each of them stands for, None if not known.
    """

    def __init__(
        self,
        name: str,
        *,
        vocabulary: int,
        windows: Windows,
        train: Tensor,
        val: Tensor | None,
        test: Tensor,
        token_bytes: Sequence[int] | None = None,
        words: Collection[str] = (),
    ) -> None:
        """The parts are sequences of tokens, (N,). words: what each token stands for, of which a network knows its
        own by their hash. Raises: ValueError for a part that is too short.
        """
        self.vocabulary, self.length = vocabulary, windows.length
        parts = {
            part: tokens for part, tokens in (("train", train), ("val", val), ("test", test)) if tokens is not None
        }
        loaders = {
            part: windows.loader(f"{name}, {part}", tokens, part == "train") for part, tokens in parts.items()
        }
        super().__init__(
            name, train=loaders["train"], val=loaders.get("val"), test=loaders["test"], unit="windows",
            digest={part: of_tensors(tokens, names=words) for part, tokens in parts.items()},
            model_arguments={"vocabulary": vocabulary, "length": windows.length},
            task_arguments={"token_bytes": token_bytes},
            input={"shape": [windows.length], "dtype": "int64", "vocabulary": vocabulary, **_hash_of(words)},
            facts={
                "vocabulary": vocabulary, "length": windows.length,
                "tokens": {part: len(tokens) for part, tokens in parts.items()},
            },
        )  # fmt: skip


def _hash_of(words: Collection[str]) -> dict[str, str]:
    text = "\n".join(words)
    return {"vocabulary_sha256": hashlib.sha256(text.encode()).hexdigest()[:16]} if text else {}


def text(
    *,
    path: str,
    length: int,
    seed: int,
    device: torch.device | str,
    batch_size: int,
    val_share: float = 0.1,
    test_share: float = 0.05,
) -> TextData:
    """The bytes of a file, or of all files of a folder in the order of their names.

    The last `val_share` of them is the validation part, the `test_share` before it the test part. Raises:
    ValueError for a path without bytes, shares that leave nothing, or too few bytes for windows of `length`.
    """
    if length < 1:
        raise ValueError(f"dataset.length={length} is not at least 1")
    if not (val_share >= 0 and test_share > 0 and val_share + test_share < 1):
        raise ValueError(f"val_share={val_share} and test_share={test_share} leave no text to train on, or no test")
    tokens = torch.from_numpy(_bytes_of(Path(path).expanduser()))  # (N,) uint8
    held, tested = (int(len(tokens) * share) for share in (val_share, test_share))
    end = len(tokens) - held  # of the test part
    train, test, val = tokens[: end - tested], tokens[end - tested : end], tokens[end:]
    return TextData(
        f"text {shown_path(Path(path).name)}", vocabulary=BYTES, windows=Windows(length, batch_size, device, seed),
        train=train, val=val if val_share else None, test=test, token_bytes=[1] * BYTES,
    )  # fmt: skip


def _bytes_of(path: Path) -> np.ndarray:
    """(N,) uint8. Raises: ValueError for a path without bytes."""
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    try:
        content = b"".join(file.read_bytes() for file in files)
    except OSError as error:
        raise ValueError(f"dataset.path={path}: cannot be read ({error.strerror})") from error
    if not content:
        raise ValueError(f"dataset.path={path}: {'no file with content' if path.is_dir() else 'an empty file'}")
    return np.frombuffer(bytearray(content), np.uint8)
