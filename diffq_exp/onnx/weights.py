"""A quantized weight as a part of an ONNX graph: integers, and the standard operators that turn them into floats.

    levels (rows, group_size) -> DequantizeLinear, a scale per row -> Add low -> Reshape

Where all groups have one width they are one row. Where widths differ, the rows of each integer type are a tensor of
their own and ScatterND puts them back in order. A group needs only its place among the widths that
occur, 2 or 4 bits: scales, types and the order of rows follow from it by Gather, Equal and NonZero, while a stored
scale and a stored row number would take 12 bytes. A short last group is padded, and the padding is cut off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..stored.grids import Stored
from .integers import Kind, integers, narrowest

Numbers = NDArray[np.integer]
TYPES = {
    torch.float32: "FLOAT", torch.float64: "DOUBLE", torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16",
}  # fmt: skip


def wanted_kinds(stored: Stored, kinds: Sequence[Kind]) -> set[Kind]:
    """The types that the tensor uses where all `kinds` are available."""
    widths = np.unique(stored.bits.numpy())
    wanted = {narrowest(int(width), kinds) for width in widths if width}
    return wanted | ({_table_kind(len(widths), kinds)} if len(widths) > 1 else set())


def _table_kind(widths: int, kinds: Sequence[Kind]) -> Kind:
    return narrowest((widths - 1).bit_length(), kinds)


@dataclass
class Part:
    """Nodes and constants that compute one weight; every name begins with that of the weight."""

    name: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    level_bytes: dict[Kind, int] = field(default_factory=dict)  # of the levels, by their type
    table_bytes: int = 0  # of the places of the groups among the widths
    packed_bytes: int = 0  # of the levels bit-packed

    def node(self, kind: str, inputs: Sequence[str], **attributes: object) -> str:
        """Add an operator; -> the name of its output."""
        output = f"{self.name}/{len(self.nodes)}"  # short: in small weights the names take most of the bytes
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, label: str, values: Any, dtype: Any) -> str:
        """Add a small constant; -> its name."""
        name = f"{self.name}/{label}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def integers(self, label: str, numbers: Numbers, kind: Kind) -> str:
        """Add integers of `kind`; -> their name."""
        name = f"{self.name}/{label}"
        self.constants.append(integers(name, numbers, kind))
        return name

    def levels(self, rows: Numbers, kind: Kind) -> str:
        """Add levels, (rows, group_size); -> their name."""
        self.level_bytes[kind] = kind.nbytes(rows.size)
        return self.integers(f"levels_{kind.name}", rows, kind)

    def finish(self) -> Part:
        """Let the last node give the weight under its own name."""
        self.nodes[-1].output[0] = self.name
        return self


def weight_part(name: str, stored: Stored, kinds: Sequence[Kind], code: int) -> Part:
    """The operators that give the values of a `Stored` on the CPU under `name`, of the type that `code` is in ONNX.

    Raises: ValueError when no type of `kinds` holds the levels.
    """
    part = Part(name, packed_bytes=(_level_bits(stored) + 7) // 8)
    widths, places = np.unique(stored.bits.numpy(), return_inverse=True)
    if len(widths) > 1:
        values = _mixed(part, stored, widths, places, kinds)
    elif widths[0]:
        values = _one_width(part, stored, int(widths[0]), kinds)
    else:
        offset = part.constant("offset_of_zero", _offset_of_zero(stored), np.float32)
        values = part.node("Expand", [offset, part.constant("rows", _channels(stored).shape, np.int64)])
    if stored.grid == "minmax":
        low, _ = _ranges(stored)
        values = part.node("Add", [values, part.constant("low", low[:, None], np.float32)])
    values = _shaped(part, values, stored)
    own = getattr(TensorProto, TYPES[stored.dtype])
    if own != TensorProto.FLOAT:  # values are computed in float32 and rounded to the weight's type
        values = part.node("Cast", [values], to=own)
    if own != code:
        part.node("Cast", [values], to=code)
    return part.finish()


def _one_width(part: Part, stored: Stored, width: int, kinds: Sequence[Kind]) -> str:
    """A row of levels for each scale; signed levels have their zero in the middle."""
    kind, rows = narrowest(width, kinds), _channels(stored)
    inputs = [part.levels(rows, kind)]
    inputs.append(part.constant("scale", _scales(stored, np.array([width])), np.float32))
    if stored.grid == "step":
        inputs.append(part.integers("zero", np.full(len(rows), 2 ** (width - 1)), kind))
    return part.node("DequantizeLinear", inputs, axis=0)


def _mixed(part: Part, stored: Stored, widths: Numbers, places: Numbers, kinds: Sequence[Kind]) -> str:
    """Groups of several widths, (groups, group_size), less `low`; `places` (groups,) say which of `widths`."""
    rows = _rows(stored)
    table_kind = _table_kind(len(widths), kinds)
    part.table_bytes = table_kind.nbytes(len(places))
    table = part.integers("places", places, table_kind)
    floats = part.node("DequantizeLinear", [table, part.constant("one", 1, np.float32)])
    place = part.node("Cast", [floats], to=TensorProto.INT64)
    scales = part.node("Gather", [part.constant("scales", _scales(stored, widths), np.float32), place])
    kind_of = [narrowest(int(width), kinds) if width else None for width in widths]
    if len(set(kind_of)) == 1 and kind_of[0]:
        return part.node("DequantizeLinear", [part.levels(rows, kind_of[0]), scales], axis=0)
    used = [kind for kind in kinds if kind in kind_of]
    sort = part.constant("kinds", [kind.width if kind else 0 for kind in kind_of], np.int64)
    sort = part.node("Gather", [sort, place])
    indices, values = [], []
    for kind in used:
        mask = part.node("Equal", [sort, part.constant(f"is_{kind.name}", kind.width, np.int64)])
        chosen = np.array([own == kind for own in kind_of])[places]
        inputs = [part.levels(rows[chosen], kind), part.node("Compress", [scales, mask], axis=0)]
        values.append(part.node("DequantizeLinear", inputs, axis=0))
        indices.append(part.node("Transpose", [part.node("NonZero", [mask])]))
    rest = part.constant("offset_of_zero", _offset_of_zero(stored), np.float32)
    everywhere = part.node("Expand", [rest, part.constant("rows", rows.shape, np.int64)])
    joined = [part.node("Concat", several, axis=0) for several in (indices, values)]
    return part.node("ScatterND", [everywhere, *joined])


def _level_bits(stored: Stored) -> int:
    """Bits of all levels, each at the width of its group."""
    entries = stored.levels.numel()
    size = stored.group_size or entries
    missing = len(stored.bits) * size - entries  # entries that the last group lacks
    return int(stored.bits.sum()) * size - int(stored.bits[-1]) * missing


def _rows(stored: Stored) -> Numbers:
    """Levels by group, (groups, group_size), a short last group padded with zeros."""
    levels, groups = stored.levels.numpy(), len(stored.bits)
    size = stored.group_size or len(levels)
    return np.concatenate([levels, np.zeros(groups * size - len(levels), levels.dtype)]).reshape(groups, size)


def _channels(stored: Stored) -> Numbers:
    """Levels by scale, (C, entries)."""
    levels: Numbers = stored.levels.numpy()
    return levels.reshape(-1, stored.channel_size or len(levels))


def _ranges(stored: Stored) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(low, high) of the grid "minmax", (C,) each."""
    low, high = stored.scales.numpy().reshape(-1, 2).T
    return low, high


def _scales(stored: Stored, widths: Numbers) -> NDArray[np.float32]:
    """The float32 value of one level for each width or each channel, 0 for groups without levels."""
    if stored.grid == "step":
        steps: NDArray[np.float32] = stored.scales.numpy()
        return np.repeat(steps, len(widths) if len(steps) == 1 else 1)
    low, high = _ranges(stored)
    tops = np.exp2(widths.astype(np.float32)) - 1 if stored.top is None else np.full(len(widths), stored.top)
    return np.where(widths, (high - low) / np.maximum(tops, 1).astype(np.float32), 0).astype(np.float32)


def _offset_of_zero(stored: Stored) -> NDArray[np.float32]:
    """From `low` to the value of a group without levels, (C, 1): 0, or the end of the range nearest to 0."""
    if stored.grid == "step":
        return np.zeros((1, 1), np.float32)
    low, high = _ranges(stored)
    offset: NDArray[np.float32] = np.clip(np.float32(0), low, high) - low
    return offset[:, None]


def _shaped(part: Part, values: str, stored: Stored) -> str:
    """In the shape of the weight, without the padding of a short last group."""
    entries = stored.levels.numel()
    if len(np.unique(stored.bits.numpy())) > 1 and entries % (stored.group_size or entries):
        flat = part.node("Reshape", [values, part.constant("flat", [-1], np.int64)])
        ends = [part.constant(label, [at], np.int64) for label, at in (("start", 0), ("stop", entries))]
        values = part.node("Slice", [flat, *ends])
    return part.node("Reshape", [values, part.constant("shape", stored.shape, np.int64)])
