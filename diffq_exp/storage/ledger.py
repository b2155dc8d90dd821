"""Where the bytes of a stored network go: a row per tensor and a row for the rest; they add up to its size."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from ..stored.grids import zero_rows
from .read import StoredFile, named, open_stored


@dataclass(frozen=True)
class Row:
    """Bytes of a tensor, or of header and index (metadata; padding follows either of them).

    zero_rows: how many rows of a quantized tensor are all zero, as text, "" where there is none.
    """

    name: str
    levels: int = 0
    bits: int = 0
    scales: int = 0
    models: int = 0
    floats: int = 0
    buffers: int = 0
    metadata: int = 0
    padding: int = 0
    zero_rows: str = ""

    @property
    def total(self) -> int:
        return sum(getattr(self, kind) for kind in COLUMNS)


COLUMNS = tuple(field.name for field in fields(Row) if field.type == "int")


def ledger(path: Path | str) -> list[Row]:
    """The rows of a stored model; the last is their sum, and its total the size of the file.

    Raises: as `diffq_exp.storage.read`.
    """
    file = open_stored(path)
    with named(path):
        rows = [_quantized(file, name) for name in file.contents.tensors]
    for kind, tensors in (("floats", file.contents.floats), ("buffers", file.contents.buffers)):
        stored = {name: 0 if name in file.contents.constant else tensor.nbytes for name, tensor in tensors.items()}
        rows += [_plain(name, kind, count) for name, count in stored.items()]
    rows.append(Row("(header and index)", metadata=file.metadata, padding=file.padding))
    return [*rows, Row("total", *(sum(getattr(row, kind) for row in rows) for kind in COLUMNS))]


def _quantized(file: StoredFile, name: str) -> Row:
    tensor = file.contents.tensors[name]
    coded = tensor.coded
    zeros = zero_rows(tensor.decode())
    rows = f"{zeros} of {tensor.shape[0]} rows zero" if zeros else ""
    return Row(name, len(coded.levels), len(coded.bits), len(tensor.scales), len(coded.models), zero_rows=rows)


def _plain(name: str, kind: str, count: int) -> Row:
    return Row(name, floats=count) if kind == "floats" else Row(name, buffers=count)


def table(rows: list[Row]) -> str:
    """The rows as text in columns, zeros as dots."""
    head = ["", *COLUMNS, "bytes", ""]
    lines = [
        [
            row.name if row.name.isprintable() else repr(row.name),
            *(_shown(getattr(row, kind)) for kind in COLUMNS),
            _shown(row.total),
            row.zero_rows,
        ]
        for row in rows
    ]
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]

    def joined(line: list[str]) -> str:
        numbers = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        return "  ".join([line[0].ljust(widths[0]), *numbers]).rstrip()

    rule = "-" * len(joined(head))
    return "\n".join([joined(head), rule, *map(joined, lines[:-1]), rule, joined(lines[-1])])


def _shown(number: int) -> str:
    return f"{number:,}" if number else "."
