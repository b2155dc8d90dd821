"""Entry point: python -m diffq_exp.evaluate <run folder or file> [--allow package.Class] [--root DIR]
    [--ledger | --sensitivity]

Measures a stored model again, from the file alone: its scores and its size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .common.entry import MISTAKE, Parser, entry_point, program
from .common.printable import one_line, printable
from .common.units import MB

if TYPE_CHECKING:
    from torch import nn

    from .data import Data
    from .stored.network import StoredModel
    from .tasks import Task


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, or 2 with one line on standard error when the file or an option is wrong."""
    args = _parser().parse_args(argv)
    try:
        args.act(args)
    except (ValueError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return MISTAKE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=program("evaluate"), description=__doc__.split("\n\n")[1])
    parser.add_argument("source", help="a run folder, or a stored model")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="package.Class",
        help="a class of your own that may be built",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.set_defaults(act=_evaluate)
    only = parser.add_mutually_exclusive_group()
    for option, act, text in (
        ("--ledger", _show_ledger, "only list where the bytes of the file go"),
        ("--sensitivity", _show_sensitivity, "only list what the loss would rise by for each kB less of a tensor"),
    ):
        only.add_argument(option, dest="act", action="store_const", const=act, help=text)
    parser.add_argument("--root", help="where the data are now, for data sets with a root or a path")
    return parser


def _show_ledger(args: argparse.Namespace) -> None:
    from .runs.loading import stored_file
    from .storage.ledger import ledger, table

    print(table(ledger(stored_file(args.source))))


def _evaluate(args: argparse.Namespace) -> None:
    from .training.measure import evaluate

    loaded = _loaded(args)
    parts = {"test": loaded.data.test, **({} if loaded.data.val is None else {"val": loaded.data.val})}
    try:
        scores = {name: evaluate(loaded.model, part, loaded.task) for name, part in parts.items()}
    except Exception as error:  # whatever its configuration says of data and task
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{loaded.path}: its network cannot be measured ({reason})") from error
    _show(loaded.path, scores, loaded.stored)


def _show_sensitivity(args: argparse.Namespace) -> None:
    """Print what a byte of each tensor is worth; in the folder of a run, keep it for the page of a report."""
    from .common.files import write_json
    from .results.run_files import SENSITIVITY
    from .storage.layout import PACKED
    from .storage.read import open_stored
    from .training.sensitivity import sensitivities, table

    loaded = _loaded(args)
    if loaded.data.val is None:
        raise ValueError(f"{loaded.path}: --sensitivity needs a validation part, and val_fraction was 0")
    codings = {tensor.coded.coding[0] for tensor in open_stored(loaded.path).contents.tensors.values()}
    if not codings:
        raise ValueError(f"{loaded.path}: --sensitivity: no tensor is quantized")
    coding = "packed" if codings == {PACKED} else "auto"
    rows = list(sensitivities(loaded.model, loaded.stored, loaded.data.val, loaded.task, coding))
    print(table(rows))
    if Path(args.source).is_dir():
        write_json(Path(args.source) / SENSITIVITY, {row.name: row.loss_per_kb for row in rows})


@dataclass
class _Loaded:
    """A stored model, and what it is measured on."""

    path: Path
    stored: StoredModel
    model: nn.Module
    data: Data
    task: Task


def _loaded(args: argparse.Namespace) -> _Loaded:
    """Build all of it. Raises: ValueError with the path of a file whose configuration does not describe it."""
    from . import storage
    from .command.devices import device_error
    from .data.as_stored import follow
    from .runs.build import check_takes, pick_device
    from .runs.loading import stored_file
    from .runs.rebuild import build_stored, build_stored_model
    from .tasks import as_task

    path = stored_file(args.source)
    stored, config = storage.read(path)
    if absent := device_error(args.device):
        raise ValueError(absent)
    device = pick_device(args.device)
    try:
        model = build_stored_model(stored, config, args.allow).to(device)
        if args.root is not None:
            node = config["dataset"]["node"]
            node["path" if "path" in node else "root"] = args.root
        runtime = {"device": device, "batch_size": config["batch_size"]}
        data = build_stored(config, "dataset", args.allow, **runtime)
        warnings = _changes_since(Path(args.source), data) if Path(args.source).is_dir() else []
        warnings += follow(data, described if isinstance(described := config.get("input"), dict) else {})
        check_takes(model, data)
        task = as_task(build_stored(config, "task", args.allow, **data.task_arguments))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its config lacks {error}") from error
    except Exception as error:  # of data and task, whatever the config says of them
        raise ValueError(f"{path}: its config cannot be followed ({type(error).__name__}: {error})") from error
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    return _Loaded(path, stored, model, data, task)


def _changes_since(folder: Path, data: Data) -> list[str]:
    """How the data of now differ from those of the run in a folder, if there is one."""
    from .results.records import is_run, read_record
    from .runs.data_record import difference

    try:
        since = difference(read_record(folder).data, data) if is_run(folder) else ""
    except (ValueError, OSError) as error:
        return [f"whether the data have changed since the run cannot be told: {one_line(error)}"]
    return [f"the data have changed since the run: {since}"] if since else []


def _show(path: Path, scores: dict[str, dict[str, float]], stored: StoredModel) -> None:
    size = path.stat().st_size
    entries = sum(value.numel() for value in stored.values().values())
    for part, values in scores.items():
        for name, value in values.items():
            print(f"{printable(f'{part}.{name}'):<20} {value:.6g}")
    print(f"{'size_mb.file':<20} {size / MB:.6g}  ({size:,} bytes; {4 * entries / MB:.6g} MB as float32)")
    for name, tensor in stored.tensors.items():
        print(f"{printable(f'stored_bits.{name}'):<32} {tensor.bits.float().mean():.3g}")


if __name__ == "__main__":
    sys.exit(main())
