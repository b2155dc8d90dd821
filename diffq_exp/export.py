"""Entry point: python -m diffq_exp.export <run folder or file> --to onnx|state_dict [--out PATH]

Writes a stored network for other programs: as ONNX of standard operators with the weights kept as integers, or as a
state_dict in float. The ONNX graph is compared with torch first; where an output differs by more than 1e-4 of the
largest output (or of 1, if that is smaller) nothing is written. A state_dict has every name of the network, tied
weights under each of their names, so that `load_state_dict(load_file(path))` loads it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .common.entry import MISTAKE, Parser, entry_point, program
from .common.files import replacing
from .common.packages import install_command
from .common.printable import one_line

if TYPE_CHECKING:
    from .onnx.graph import Graph
    from .stored.network import StoredModel

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, or 2 with one line on standard error when the file or an option is wrong."""
    args = _parser().parse_args(argv)
    try:
        _export(args)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return MISTAKE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=program("export"), description=__doc__.partition("\n\n")[2])
    parser.add_argument("source", help="a run folder, or a stored model")
    parser.add_argument("--to", required=True, choices=tuple(FORMS))
    parser.add_argument("--out", type=Path, metavar="PATH", help="the file to write; by default beside the model")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="package.Class",
        help="a class of your own that may be built",
    )
    parser.add_argument(
        "--opset", type=int, metavar="N", help="ONNX opset; by default the oldest with the types needed"
    )
    return parser


def _export(args: argparse.Namespace) -> None:
    from . import storage
    from .runs.loading import stored_file

    default, write = FORMS[args.to]
    if args.to == "onnx":
        _check_packages()
    elif args.opset is not None:
        raise ValueError(f"--opset belongs to --to onnx, not to --to {args.to}")
    path = stored_file(args.source)
    out = path.with_name(default) if args.out is None else args.out
    if out.is_dir():
        out = out / default
    if out.exists() and out.samefile(path):
        raise ValueError(f"--out {out} is the stored model itself")
    if out.is_file() and out.suffix not in (".onnx", ".safetensors"):
        raise ValueError(f"--out {out} exists; only .onnx and .safetensors files are overwritten")
    stored, config = storage.read(path)
    try:
        with replacing(out) as file:
            lines = write(args, stored, config, file)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    _show([("file", str(out)), ("bytes", _count(out.stat().st_size)), *lines])


def _check_packages() -> None:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(f"--to onnx needs {', '.join(missing)}: {install_command('onnx')}")


# ---- the forms ------------------------------------------------------------------------------------------------

Lines = list[tuple[str, str]]


def _state_dict(args: argparse.Namespace, stored: StoredModel, config: dict[str, Any], file: BinaryIO) -> Lines:
    """Every tensor by every name; float16 stays float16. No network is built, so nothing has to be allowed."""
    from .storage.tensor_file import write_tensors

    values = stored.values()
    write_tensors(file, values, {"format": "pt"})
    return [("tensors", f"{len(values):,}, tied ones under each name: {len(stored.tied):,}")]


def _onnx(args: argparse.Namespace, stored: StoredModel, config: dict[str, Any], file: BinaryIO) -> Lines:
    from .onnx.graph import onnx_graph
    from .onnx.inputs import Input
    from .runs.rebuild import build_stored_model

    model = build_stored_model(stored, config, args.allow)
    try:
        described = dict(config["input"])
        inputs = Input.described(described)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its config lacks the shape of its input") from error
    # for whoever runs the file: images are (x / 255 - mean) / std, outputs are in the order of the classes
    notes = {f"input.{key}": json.dumps(value) for key, value in described.items()}
    graph = onnx_graph(model, stored, inputs, args.opset, notes)
    file.write(graph.data)
    return _onnx_lines(graph, stored)


def _onnx_lines(graph: Graph, stored: StoredModel) -> Lines:
    by_kind: dict[str, int] = {}
    for part in graph.parts:
        for kind, nbytes in part.level_bytes.items():
            by_kind[kind.name] = by_kind.get(kind.name, 0) + nbytes
    levels, tables = sum(by_kind.values()), sum(part.table_bytes for part in graph.parts)
    packed = sum(part.packed_bytes for part in graph.parts)
    kinds = ", ".join(f"{name} {_count(by_kind[name])}" for name in by_kind) or "none"
    lines = [
        ("integers", f"{_count(levels + tables)}  (levels: {kinds}; widths of groups: {_count(tables)})"),
        ("bit_packed", f"{_count(packed)}  (the same levels bit-packed)"),
        ("widening", f"{_count(levels - packed)}  (the cost of whole integer types)"),
        ("opset", f"{graph.opset}  (written by {graph.exporter})"),
        (
            "difference",
            f"{graph.difference:.3g}  (largest of onnxruntime from torch, as a part of the largest output or of 1)",
        ),
    ]
    return lines + [("left_out", f"{name}  (no output depends on it)") for name in graph.unused]


def _count(nbytes: int) -> str:
    return f"{nbytes:,} bytes"


def _show(lines: Lines) -> None:
    for name, text in lines:
        print(f"{name:<12} {text}")


FORMS = {"onnx": ("model.onnx", _onnx), "state_dict": ("state_dict.safetensors", _state_dict)}

if __name__ == "__main__":
    sys.exit(main())
