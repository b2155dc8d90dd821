"""The file of a stored network: a safetensors file with a single entry of bytes, `data`.

    8 bytes    checksum of all that follows
    6 numbers  lengths of the index and of the five payloads, seven bits to a byte
    index      JSON, deflated with a dictionary (dictionary.py): names, shapes, codings, lengths, the configuration
    scales     float32 range or step of each quantized tensor, or of each of its channels
    levels     of the quantized tensors, bit-packed or entropy-coded, whole bytes for each
    bits       their tables of bits, in the same way
    models     the distributions by which levels and bits are entropy-coded (entropy.py)
    floats     raw bytes of the tensors that are not quantized: parameters, then buffers
    zeros      where a network needs them, see `fewest_bytes`

The metadata of the safetensors header has the format. Reading checks every length against the bytes of the file
before it allocates memory. docs/stored_file.md describes all of it; version2.py reads the format before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import torch

from ..stored.packing import Bytes

OLDEST, NEWEST = 2, 3  # versions of the format that are read; the newest is written
FORMAT = f"diffq_exp.model/{NEWEST}"
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip
PAYLOADS = ("scales", "levels", "bits", "models", "floats")
CODINGS = ("auto", "packed")
PACKED, ANS, CONTEXT = "packed", "ans", "context"  # of the levels of a tensor
PER_CHANNEL = "/channel"  # after the name of a grid: a scale for each channel
CHECKSUM_BYTES = 8
NUMBER_BYTES = 9  # a number of the front takes at most so many

# A file may claim that its tensors have this many entries, so that memory stays in proportion to the size of the
# file. A code takes less than a 64th of a byte per entry only where almost all entries are equal.
FREE_ENTRIES, ENTRIES_PER_BYTE = 2**20, 64
NAMES = 16  # and so many times these under other names: each is a tensor of its own in a state_dict
# The same for the text of the index, and for the values in it.
FREE_TEXT, TEXT_PER_BYTE = 2**16, 64
FREE_VALUES = 20_000  # plus 1 per byte


def most_entries(file_bytes: int) -> int:
    """Entries of quantized and constant tensors that a file of this size may hold."""
    return FREE_ENTRIES + ENTRIES_PER_BYTE * file_bytes


def fewest_bytes(entries: int, tied: int, index: bytes, at_least: int) -> int:
    """Bytes with which readers accept this many entries, and tied ones, and this index; at least `at_least`."""
    for_entries = -(-(max(entries, -(-tied // NAMES)) - FREE_ENTRIES) // ENTRIES_PER_BYTE)
    for_text = -(-(len(index) - FREE_TEXT) // TEXT_PER_BYTE)
    return max(at_least, for_entries, for_text, values_in(index) - FREE_VALUES)


def values_in(text: bytes) -> int:
    """About how many values a JSON text has."""
    return sum(text.count(sign) for sign in (b",", b"[", b"{"))


def version_of(given: object) -> int:
    """The version of a format. Raises: ValueError for another format, or a version that is not read."""
    match = re.fullmatch(r"diffq_exp\.model/(\d{1,9})", str(given))
    if match is None:
        raise ValueError(f"not a stored model of this package (format {given!r}, not {FORMAT!r})")
    version = int(match[1])
    if not OLDEST <= version <= NEWEST:
        remedy = "a newer diffq_exp reads it" if version > NEWEST else "store the network again"
        raise ValueError(f"format {given!r}, this release reads versions {OLDEST} to {NEWEST}: {remedy}")
    return version


def checksum(parts: Iterable[Bytes]) -> bytes:
    """BLAKE2b of 8 bytes."""
    digest = blake2b(digest_size=CHECKSUM_BYTES)
    for part in parts:
        digest.update(part.data)
    return digest.digest()


def header(entries: Mapping[str, tuple[str, list[int], int]], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON that a safetensors file begins with. entries: type, shape and bytes, in order."""
    described: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, (kind, shape, nbytes) in entries.items():
        described[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end := end + nbytes]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the data begins at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def number_bytes(number: int) -> bytes:
    """Seven bits to a byte, the lowest first; the highest bit of a byte says that another follows."""
    more = bytearray()
    while number >= 128:
        more.append(number & 127 | 128)
        number >>= 7
    return bytes([*more, number])


def read_number(data: Bytes, at: int) -> tuple[int, int]:
    """A number, and the place after it. Raises: ValueError when the data ends in it, or it is no such number."""
    number = 0
    for place, byte in enumerate(data[at : at + NUMBER_BYTES].tolist()):
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number, at + place + 1
    raise ValueError("its lengths cannot be read")
