"""The file of a stored network: a safetensors file of few entries, one payload per kind, in the order of the index.

    scales   float32 range or step of each quantized tensor
    levels   uint8   levels of the quantized tensors, bit-packed or entropy-coded, whole bytes for each
    bits     uint8   their tables of bits, in the same way
    models   uint8   the distributions by which levels and bits are entropy-coded (entropy.py)
    floats   uint8   raw bytes of the tensors that are not quantized: parameters, then buffers
    index    uint8   zlib-compressed JSON: names, shapes, group sizes, codings, lengths; and the configuration

The header's metadata has the format, the method and the checksum as text. A header entry takes about 75 bytes, so
that a tensor does not get an entry of its own. Reading checks every length against the bytes of the file before it
allocates memory. docs/stored_file.md describes all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import torch

from ..stored.packing import Bytes

OLDEST, NEWEST = 2, 3  # versions of the format that are read; 3 knows levels coded in context
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip
KINDS = {"scales": "F32", "levels": "U8", "bits": "U8", "models": "U8", "floats": "U8", "index": "U8"}
CODINGS = ("auto", "packed")
PACKED, ANS, CONTEXT = "packed", "ans", "context"  # of the levels of a tensor
FLOATS = ("float32", "float16")

# A file may claim that its tensors have this many entries, so that memory stays in proportion to the size of the
# file. A code takes less than a 64th of a byte per entry only where almost all entries are equal.
FREE_ENTRIES, ENTRIES_PER_BYTE = 2**20, 64
# The same for the text of the index, and for the values in it.
FREE_TEXT, TEXT_PER_BYTE = 2**16, 64
FREE_VALUES = 20_000  # plus 1 per byte


def most_entries(file_bytes: int) -> int:
    """Entries of quantized tensors that a file of this size may hold."""
    return FREE_ENTRIES + ENTRIES_PER_BYTE * file_bytes


def fewest_bytes(entries: int, index: bytes, at_least: int) -> int:
    """Bytes of payloads with which readers accept this many entries and this index; at least `at_least`."""
    for_entries = -(-(entries - FREE_ENTRIES) // ENTRIES_PER_BYTE)
    for_text = -(-(len(index) - FREE_TEXT) // TEXT_PER_BYTE)
    return max(at_least, for_entries, for_text, values_in(index) - FREE_VALUES)


def values_in(text: bytes) -> int:
    """About how many values a JSON text has."""
    return sum(text.count(sign) for sign in (b",", b"[", b"{"))


def format_of(codings: Collection[str]) -> str:
    """The oldest version that a reader needs for tensors coded so."""
    return f"diffq_exp.model/{NEWEST if CONTEXT in codings else OLDEST}"


def check_format(given: object) -> None:
    """Raises: ValueError for a file of another format or version."""
    match = re.fullmatch(r"diffq_exp\.model/(\d{1,9})", str(given))
    if match is None:
        raise ValueError(f"not a stored model of this package (format {given!r}, not 'diffq_exp.model/{NEWEST}')")
    if not OLDEST <= int(match[1]) <= NEWEST:
        remedy = "a newer diffq_exp reads it" if int(match[1]) > NEWEST else "store the network again"
        raise ValueError(f"format {given!r}, this release reads versions {OLDEST} to {NEWEST}: {remedy}")


def checksum(payloads: Mapping[str, Sequence[Bytes]], plain: Mapping[str, str]) -> str:
    """BLAKE2b of 16 bytes over the plain metadata and, in the order of their names, the payloads."""
    digest = blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for name in sorted(payloads):
        digest.update(name.encode())
        for part in payloads[name]:
            digest.update(part.data)
    return digest.hexdigest()


def header(sizes: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON that a safetensors file of these payloads, bytes by name, begins with."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, kind in KINDS.items():
        length = sizes[name] // np.dtype({"F32": "f4", "U8": "u1"}[kind]).itemsize
        entries[name] = {"dtype": kind, "shape": [length], "data_offsets": [at, at + sizes[name]]}
        at += sizes[name]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # payloads begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text
