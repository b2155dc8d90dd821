"""Reads files of format 2, which the releases before wrote: six entries instead of one, the checksum as text.

The index and the payloads are those of format 3, except that the method stands in the metadata and that no tensor
is constant. Nothing here writes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from hashlib import blake2b

from ..stored.packing import Bytes
from .layout import PAYLOADS
from .sections import OpenFile, Sections, entry_of, index_of, index_text

KINDS = {"scales": "F32", **dict.fromkeys((*PAYLOADS[1:], "index"), "U8")}


def sections_of(file: OpenFile, metadata: Mapping[str, str]) -> Sections:
    """The parts of an open safetensors file. Raises: ValueError naming what is wrong with them."""
    payloads = _payloads_of(file)
    given = dict(metadata)
    if given.pop("checksum", None) != checksum(payloads, given):
        raise ValueError("its checksum is wrong: the file is damaged")
    packed = payloads.pop("index")
    file_bytes = len(packed) + sum(map(len, payloads.values()))
    text, rest = index_text(packed, zlib.decompressobj(), file_bytes)
    if rest.strip(b"\0"):
        raise ValueError("its index is followed by something else")
    index = index_of(text)
    index["method"] = metadata.get("method", "")
    return Sections(index, payloads, len(rest))


def _payloads_of(file: OpenFile) -> dict[str, Bytes]:
    for name in sorted(set(file.keys()) ^ KINDS.keys()):
        raise ValueError(f"it {'lacks the' if name in KINDS else 'has an unknown'} entry {name!r}")
    return {name: entry_of(file, name, kind) for name, kind in KINDS.items()}


def checksum(payloads: Mapping[str, Bytes], plain: Mapping[str, str]) -> str:
    """BLAKE2b of 16 bytes over the plain metadata and, in the order of their names, the payloads."""
    digest = blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for name in sorted(payloads):
        digest.update(name.encode())
        digest.update(payloads[name].data)
    return digest.hexdigest()
