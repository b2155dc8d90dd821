"""Ways to damage a stored network, for fuzz_storage.py: as bytes, or so that it lies under a right checksum.

Each takes the bytes of a good file and a source of chance, and gives those of a bad one; KINDS names them all.
"""

from __future__ import annotations

import json
import random
import zlib
from hashlib import blake2b
from typing import Any

Parts = tuple[dict[str, Any], dict[str, bytes]]  # the header's JSON, the payloads


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
    header, payloads = apart(data)
    change_json(header, source)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(payloads.values())


# ---- lies under a right checksum ------------------------------------------------------------------------------

LIES: list[Any] = [
    None, True, -1, 0, 1, 7, 2**20, 2**31, 2**40, 2**63, 10**40, 0.5, 1e308, "x", "", "ans", "packed", "step",
    "minmax", "float16", "int64", "bool", "conv.weight", [], [[]], [2**40], [0], {}, {"a": 1}, "\ud800", "a\nb",
]  # fmt: skip


def apart(data: bytes) -> Parts:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    return header, {name: data[8 + length + a : 8 + length + b] for name, (a, b) in spans.items()}


def together(plain: dict[str, str], payloads: dict[str, bytes]) -> bytes:
    """The file of these payloads; that of the scales is cut to whole numbers."""
    payloads["scales"] = payloads["scales"][: len(payloads["scales"]) // 4 * 4]
    digest = blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for name in sorted(payloads):
        digest.update(name.encode() + payloads[name])
    header: dict[str, Any] = {"__metadata__": {**plain, "checksum": digest.hexdigest()}}
    at = 0
    for name, data in payloads.items():
        kind, size = ("F32", 4) if name == "scales" else ("U8", 1)
        header[name] = {"dtype": kind, "shape": [len(data) // size], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(payloads.values())


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


def payload_lie(data: bytes, source: random.Random) -> bytes:
    """One payload is damaged."""
    header, payloads = apart(data)
    name = source.choice([name for name in payloads if payloads[name] and name != "index"])
    payloads[name] = source.choice([flip, flip, put, cut, insert, swap])(payloads[name], source)
    return together(plain_of(header), payloads)


def index_lie(data: bytes, source: random.Random) -> bytes:
    header, payloads = apart(data)
    index = json.loads(zlib.decompress(payloads["index"]))
    change_json(index, source)
    if source.random() < 0.3:
        name = source.choice([name for name in payloads if payloads[name] and name != "index"])
        payloads[name] = source.choice([put, cut, insert])(payloads[name], source)
    payloads["index"] = zlib.compress(json.dumps(index).encode())
    return together(plain_of(header), payloads)


def index_bytes(data: bytes, source: random.Random) -> bytes:
    """Damage to the text of the index, or to its compressed bytes."""
    header, payloads = apart(data)
    damage = source.choice(list(BYTES.values()))
    if source.random() < 0.8:
        payloads["index"] = zlib.compress(damage(zlib.decompress(payloads["index"]), source))
    else:
        payloads["index"] = damage(payloads["index"], source)
    return together(plain_of(header), payloads)


def plain_of(header: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in header["__metadata__"].items() if key != "checksum"}


KINDS = {
    **BYTES, "header": header_edit, "payload under a checksum": payload_lie, "index under a checksum": index_lie,
    "bytes of the index": index_bytes,
}  # fmt: skip
