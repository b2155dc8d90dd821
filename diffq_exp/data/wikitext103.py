"""WikiText-103 by words, from a folder that holds wiki.train.tokens, wiki.valid.tokens and wiki.test.tokens.

The archive has words split by blanks and rare words replaced by <unk> already. As is customary, each line ends
with <eos>, and the vocabulary is that of the training file, the most frequent word first. A word of another part
that it lacks becomes <unk>. How many bytes a token stands for is not known, since <unk> stands for any
word: scores are per token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .text import TextData, Windows

FILES = {"train": "wiki.train.tokens", "val": "wiki.valid.tokens", "test": "wiki.test.tokens"}
END, UNKNOWN = "<eos>", "<unk>"


def wikitext103(*, root: str, length: int, seed: int, device: torch.device | str, batch_size: int) -> TextData:
    """Raises: ValueError naming a file that is missing, not UTF-8, or too short."""
    files = {part: Path(root).expanduser() / name for part, name in FILES.items()}
    vocabulary = _vocabulary(files["train"])
    tokens = {part: _tokens(path, vocabulary) for part, path in files.items()}
    windows = Windows(length, batch_size, device, seed)
    return TextData(
        "wikitext103", vocabulary=len(vocabulary), windows=windows, train=tokens["train"], val=tokens["val"],
        test=tokens["test"], words=vocabulary,
    )  # fmt: skip


def _vocabulary(path: Path) -> dict[str, int]:
    """{word: its number}, the most frequent first; equal counts in alphabetical order."""
    counts = Counter(_words(path))
    counts.setdefault(UNKNOWN, 0)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: number for number, word in enumerate(ordered)}


def _tokens(path: Path, vocabulary: dict[str, int]) -> Tensor:
    """(N,) int32."""
    unknown = vocabulary[UNKNOWN]
    numbers = np.fromiter((vocabulary.get(word, unknown) for word in _words(path)), np.int32)
    return torch.from_numpy(numbers)


def _words(path: Path) -> Iterator[str]:
    """The words in their order, by an iterator: a list of all 103 million would take gigabytes."""
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                yield from line.split()
                yield END
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ValueError(
            f"{path}: cannot be read ({reason}); dataset.root holds {', '.join(FILES.values())}"
        ) from error
