"""Lies about the index of a stored network, for fuzz_index.py: values of other types and sizes, other encodings.

`lied` takes the bytes of a good file and a source of chance, and gives a file with a right checksum.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from helpers.stored_files import deflated, parts_of, put_together
from storage_damage import LIES, places

ODD: list[Any] = [
    *LIES, "x" * 300, "x" * 100_000, "a/b", "../x", "hf-hub:a/b", "\x1b[31mred", "a\0b", "1e400", "=1+1", "ä", -0.0,
    2**15, 2**24, 10**7, 1e-300, [1] * 1000, [[0.5]] * 1000, {str(key): key for key in range(1000)}, "os.system",
    {"_target_": "os.system"}, "vit_h_14", "resnet152", "gpt2", "diffq_exp.models.torchvision",
]  # fmt: skip


def other(value: Any, source: random.Random) -> Any:
    """A value of another type or size, near to this one or not."""
    ways: list[Callable[[Any], Any]] = [
        lambda value: source.choice(ODD), lambda value: source.choice(ODD), lambda value: [value], str,
        lambda value: {"a": value}, lambda value: json.dumps(value), lambda value: None,
    ]  # fmt: skip
    if isinstance(value, (int, float)):
        ways += [lambda value: -value, lambda value: value + source.choice([-1, 1, 8]), lambda value: value * 2**20,
                 float, bool, lambda value: value / 2]  # fmt: skip
    if isinstance(value, str):
        ways += [lambda value: value[:-1], lambda value: value * 50, lambda value: value + "\n", str.upper]
    if isinstance(value, list):
        ways += [
            lambda value: value[:-1],
            lambda value: value[::-1],
            lambda value: value * 2,
            lambda value: value * 300,
        ]
    if isinstance(value, dict):
        ways += [lambda value: list(value.items()), lambda value: {key.upper(): value[key] for key in value}]
        ways += [lambda value: {**value, **{f"more{n}{key}": value[key] for n in range(300) for key in value}}]
    return source.choice(ways)(value)


def lie(index: Any, source: random.Random) -> None:
    """Change a value somewhere in the index; the longest lists have most of the values, not most of the lies."""
    *outer, last = source.choice(list({at[: source.randint(1, 6)]: 0 for at in places(index)}))
    inner = index
    for key in outer:
        inner = inner[key]
    old, what = inner[last], source.random()
    if what < 0.08:
        del inner[last]
    elif what < 0.14 and isinstance(inner, dict):
        inner[source.choice(["", "x", "_target_", "name", "pretrained", "a\nb", "\ud800"])] = inner.pop(last)
    elif what < 0.2:
        inner[last] = inner[source.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))]
    else:
        inner[last] = other(old, source)


def tie_all(index: Any, source: random.Random) -> None:
    """Names that would make what is exported grow."""
    rows = [row for part in ("tensors", "floats", "buffers") for row in index[part]]
    largest = max(rows, key=lambda row: sum(row[1]))[0]
    index["tied"] = {f"t{number}": largest for number in range(source.choice([10, 1000, 10_000]))}


def encoded(index: Any, source: random.Random) -> bytes:
    """The text of the index in another encoding, or with JSON that is odd."""
    text = json.dumps(index)
    deep = source.choice([100, 900, 100_000])
    return source.choice([
        lambda: text.encode("utf-16"), lambda: b"\xef\xbb\xbf" + text.encode(), lambda: text.encode("utf-32-le"),
        lambda: text.encode("cp500"), lambda: text.replace("a", "\xe9").encode("latin-1"), lambda: b"[" * deep,
        lambda: (text[:-1] + ',"config":' + "[" * deep + "]" * deep + "}").encode(),
        lambda: (text[:-1] + ',"tensors":[]}').encode(), lambda: text.replace("0", "NaN").encode(),
        lambda: text.replace("null", "1e999").encode(),
        lambda: text.replace("[", "[" + "9" * 5000 + ",", 3).encode(),
        lambda: text.encode() + b"\0", lambda: b"\xff" + text.encode(), lambda: text.encode()[: len(text) // 2],
    ])()  # fmt: skip


def lied(data: bytes, source: random.Random) -> tuple[str, bytes]:
    """-> the kind of lie, and the file."""
    parts, what = parts_of(data), source.random()
    if what < 0.1:
        parts.index_bytes = deflated(encoded(parts.index, source))
        return "encoding", put_together(parts)
    if what < 0.15:
        tie_all(parts.index, source)
        return "ties", put_together(parts)
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        lie(parts.index if what < 0.5 else parts.index["config"], source)
        if not isinstance(parts.index.get("config"), dict) or not parts.index["config"]:
            break
    return "index" if what < 0.5 else "configuration", put_together(parts)
