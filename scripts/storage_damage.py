"""Ways to damage a stored network, for fuzz_storage.py: as bytes, or so that it lies under a right checksum.

Each takes the bytes of a good file and a source of chance, and gives those of a bad one; KINDS names them all.
"""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from helpers.stored_files import OLD, Parts, as_version2, deflated, parts_of, put_together, varint

__all__ = ["KINDS", "as_version2"]


# ---- damage to bytes ------------------------------------------------------------------------------------------


def flip(data: bytes, source: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 20])):
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
    return bytes(changed)


def cut(data: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(data))
    return data[:start] if source.random() < 0.5 else data[:start] + data[start + source.randint(1, 99) :]


def insert(data: bytes, source: random.Random) -> bytes:
    start, more = source.randint(0, len(data)), source.choice([1, 4, 100, 5000])
    return data[:start] + source.choice([source.randbytes(more), b"\0" * more]) + data[start:]


def swap(data: bytes, source: random.Random) -> bytes:
    a, b, c, d = sorted(source.randint(0, len(data)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def put(data: bytes, source: random.Random) -> bytes:
    start, more = source.randrange(max(1, len(data))), source.choice([1, 2, 4, 8, 30])
    return data[:start] + source.choice([b"\0", b"\xff", b"\1"]) * more + data[start + more :]


BYTES = {"flipped": flip, "cut": cut, "inserted": insert, "swapped": swap, "overwritten": put}


def header_edit(data: bytes, source: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change_json(header, source)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


# ---- lies under a right checksum ------------------------------------------------------------------------------

LIES: list[Any] = [
    None, True, -1, 0, 1, 7, 2**20, 2**31, 2**40, 2**63, 10**40, 0.5, 1e308, "x", "", "ans", "packed", "step",
    "minmax", "float16", "int64", "bool", "conv.weight", [], [[]], [2**40], [0], {}, {"a": 1}, "\ud800", "a\nb",
    float("nan"), 10**400,
]  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*at, key), *places(item, (*at, key)))]


def change_json(value: Any, source: random.Random) -> None:
    for _ in range(source.choice([1, 1, 1, 2, 5])):
        *outer, last = source.choice(places(value) or [()]) or (None,)
        inner = value
        for key in outer:
            inner = inner[key]
        if last is None:
            return
        old, what = inner[last], source.random()
        if what < 0.1:
            del inner[last]
        elif what < 0.2 and isinstance(inner, list):
            inner.insert(last, old)
        elif what < 0.4 and isinstance(old, int):
            inner[last] = old + source.choice([-8, -4, -1, 1, 4, 8])
        elif what < 0.5:
            inner[last] = inner[source.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))]
        else:
            inner[last] = source.choice(LIES)


def damage_payload(parts: Parts, source: random.Random, ways: list[Callable[..., bytes]]) -> None:
    name = source.choice([name for name, payload in parts.entries.items() if len(payload)])
    data = source.choice(ways)(parts.entries[name].tobytes(), source)
    kind = parts.entries[name].dtype if parts.plain["format"] == OLD else np.dtype(np.uint8)
    parts.entries[name] = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)


def payload_lie(data: bytes, source: random.Random) -> bytes:
    """One payload is damaged."""
    parts = parts_of(data)
    damage_payload(parts, source, [flip, flip, put, cut, insert, swap])
    return put_together(parts)


def index_lie(data: bytes, source: random.Random) -> bytes:
    parts = parts_of(data)
    change_json(parts.index, source)
    if source.random() < 0.3:
        damage_payload(parts, source, [put, cut, insert])
    return put_together(parts)


def index_bytes(data: bytes, source: random.Random) -> bytes:
    """Damage to the text of the index, or to its deflated bytes."""
    parts = parts_of(data)
    damage, squeeze = source.choice(list(BYTES.values())), zlib.compress if is_old(parts) else deflated
    text = json.dumps(parts.index).encode()
    early = source.random() < 0.8
    parts.index_bytes = squeeze(damage(text, source)) if early else damage(squeeze(text), source)
    return put_together(parts)


def lengths_lie(data: bytes, source: random.Random) -> bytes:
    """Other lengths before the index, or bytes after the payloads; format 2 has the latter only."""
    parts = parts_of(data)
    if source.random() < 0.3 or is_old(parts):
        parts.after = source.randbytes(source.choice([1, 2, 50]))
        return put_together(parts)
    parts.index_bytes = deflated(json.dumps(parts.index).encode())
    right = [len(parts.index_bytes), *(payload.nbytes for payload in parts.entries.values())]
    place = source.randrange(6)
    right[place] = max(right[place] + source.choice([-right[place], -100, -1, 1, 2, 127, 2**20, 2**62]), 0)
    front = b"".join(map(varint, right))
    parts.lengths = source.choice([flip, put, cut, insert])(front, source) if source.random() < 0.5 else front
    return put_together(parts)


def is_old(parts: Parts) -> bool:
    return parts.plain["format"] == OLD


KINDS = {
    **BYTES, "header": header_edit, "payload under a checksum": payload_lie, "index under a checksum": index_lie,
    "bytes of the index": index_bytes, "lengths under a checksum": lengths_lie,
}  # fmt: skip
