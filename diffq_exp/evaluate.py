"""Entry point: python -m diffq_exp.evaluate <run folder or file> [--allow package.Class] [--root DIR] [--ledger]

Measures a stored model again, from the file alone: its scores and its size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .common.units import MB

if TYPE_CHECKING:
    from .stored.network import StoredModel


def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, or 2 with one line on standard error when the file or an option is wrong."""
    args = _parser().parse_args(argv)
    try:
        act = _show_ledger if args.ledger else _evaluate
        act(args)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffq_exp.evaluate", description=__doc__.split("\n")[2])
    parser.add_argument("source", help="a run folder, or a stored model")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="package.Class",
        help="a class of your own that may be built",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--ledger", action="store_true", help="only list where the bytes of the file go")
    parser.add_argument("--root", help="where the data are now, for data sets with a root or a path")
    return parser


def _show_ledger(args: argparse.Namespace) -> None:
    from .runs.loading import stored_file
    from .storage.ledger import ledger, table

    print(table(ledger(stored_file(args.source))))


def _evaluate(args: argparse.Namespace) -> None:
    from . import storage
    from .command.devices import device_error
    from .runs.build import pick_device
    from .runs.loading import build_stored, build_stored_model, stored_file
    from .tasks import as_task
    from .training.measure import evaluate

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
        task = as_task(build_stored(config, "task", args.allow, **data.task_arguments))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: its config lacks {error}") from error
    scores = {"test": evaluate(model, data.test, task)}
    if data.val is not None:
        scores["val"] = evaluate(model, data.val, task)
    _show(path, scores, stored)


def _show(path: Path, scores: dict[str, dict[str, float]], stored: StoredModel) -> None:
    size = path.stat().st_size
    entries = sum(value.numel() for value in stored.values().values())
    for part, values in scores.items():
        for name, value in values.items():
            print(f"{f'{part}.{name}':<20} {value:.6g}")
    print(f"{'size_mb.file':<20} {size / MB:.6g}  ({size:,} bytes; {4 * entries / MB:.6g} MB as float32)")
    for name, tensor in stored.tensors.items():
        print(f"{f'stored_bits.{name}':<32} {tensor.bits.float().mean():.3g}")


if __name__ == "__main__":
    sys.exit(main())
