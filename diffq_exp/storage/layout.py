"""The file of a stored network: a safetensors file of few entries, one payload per kind, in the order of the index.

    levels   uint8   bit-packed levels of all quantized tensors, each padded to whole bytes
    widths   uint8   bit-packed tables of bits
    scales   float32 range or step of each quantized tensor
    floats   uint8   raw bytes of what is not quantized: parameters, then buffers
    index    uint8   zlib-compressed JSON: names, shapes, group sizes, lengths; and the configuration

The header's metadata has format, method and the checksum of all of it in plain text. A header entry costs about
85 bytes, which is why tensors do not have one each. Reading checks every length against the bytes that are there
before it allocates anything after them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

import numpy as np
import torch

FORMAT = "diffq_exp.model/1"
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip


def checksum(entries: Mapping[str, np.ndarray], plain: Mapping[str, str]) -> str:
    """SHA-256 over the plain metadata and, in the order of their names, the entries."""
    digest = sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(entries):
        digest.update(name.encode() + entries[name].tobytes())
    return digest.hexdigest()
