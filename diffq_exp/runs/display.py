"""The display of a run: a progress bar on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from ..common.terminal import console
from ..data import Data
from ..quant.quantizer import Quantizer
from ..results.headline import Headline
from ..results.records import RunRecord

log = logging.getLogger("diffq_exp")


class Display:
    """Listens to a trainer: a bar within each epoch, on terminals, and a line after it.

    headline: the score that is shown beside the loss. unit: of the examples, in the plural: "images".
    """

    def __init__(self, epochs: int, headline: Headline, unit: str) -> None:
        self.epochs, self.headline, self.unit = epochs, headline, unit
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=float(epochs), text="")
        self._size = ""

    def started(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            log.info(f"goes on after epoch {len(rows)} of {self.epochs}")
        self._bar.start()

    def step(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        parts = [f"loss {means.get('loss', 0):.4f}"]
        if (score := means.get(self.headline.name)) is not None:
            parts.append(f"{self.headline.label} {score:.4f}")
        text = "  ".join(parts) + self._size
        place = epoch - 1 + done / steps
        self._bar.update(self._task, completed=place, description=f"epoch {epoch}/{self.epochs}", text=text)

    def epoch(self, row: dict[str, Any]) -> None:
        self._size = f"  {_formula(row)}"
        log.info(epoch_line(row, self.epochs, self.headline, self.unit))

    def close(self) -> None:
        self._bar.stop()


def summary(data: Data, network: str, model: nn.Module, quantizer: Quantizer | None) -> str:
    """The first line of a run: its data, its network, and what is quantized."""
    parts = f"{data.train.examples:,} train"
    parts += f" / {data.val.examples:,} val" if data.val is not None else ""
    parts += f" / {data.test.examples:,} test {data.unit}"
    weights = sum(param.numel() for param in model.parameters())
    return f"{data.name}: {parts}; {network}: {quantizer or f'{weights:,} float32 entries'}"


def epoch_line(row: dict[str, Any], epochs: int, headline: Headline, unit: str) -> str:
    """A row of metrics as a line; train and val are the headline."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['train']['loss']:.4f}"]
    parts += [f"{part} {row[part].get(headline.name, math.nan):.4f}" for part in ("train", "val") if part in row]
    parts.append(_formula(row))
    if "bits" in row:
        parts.append(f"{row['bits']['mean']:.2f} bits")
    parts.append(f"{row['examples_per_second']:,.0f} {unit}/s")
    return "  ".join(parts)


def _formula(row: dict[str, Any]) -> str:
    """The size while training. That of the file, which is written at the end, is another."""
    return f"formula {row['size_mb']['true']:.4f} MB"


def show_result(record: RunRecord, folder: Path) -> None:
    """The table at the end of a run: float32 against stored, bits per layer, and where the files are.

    The size by the method's formula, which the lines of the epochs have, stands beside that of the file.
    """
    headline = record.compared_by
    sizes = (record.number("size_mb", name) or math.nan for name in ("float32", "true", "file"))
    float32_mb, formula_mb, file_mb = sizes
    table = Table(title=f"{folder.name}: {record.status}", title_justify="left")
    for column in ("", headline.label, "MB", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    before = record.number("test", headline.float32_name)
    table.add_row("float32 weights", _number(before), f"{float32_mb:.4f}", "1.0")
    table.add_row("formula, as in the epochs", "", f"{formula_mb:.4f}", f"{float32_mb / formula_mb:.1f}")
    table.add_row("model.safetensors", _number(record.score), f"{file_mb:.4f}", f"{float32_mb / file_mb:.1f}")
    _print(table)
    if record.target_mb is not None:
        if record.target_met:
            log.info(f"target {record.target_mb:.5g} MB: {100 * file_mb / record.target_mb:.1f} % of it are used")
        else:
            log.warning(f"target {record.target_mb:.5g} MB is NOT met: the file has {file_mb:.5g} MB")
    if layers := record.bits.get("layers"):
        zeros = record.bits.get("zero_rows", {})
        bits = Table("layer", "mean bits", *(["rows of zeros"] if zeros else []), box=None, title_justify="left")
        for name, mean in layers.items():
            bits.add_row(name, f"{mean:.2f}", *([f"{zeros[name][0]} of {zeros[name][1]}"] if name in zeros else []))
        _print(bits)
    log.info(f"everything is in {folder}/: result.json, metrics.jsonl, model.safetensors, train.log")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _print(table: Table) -> None:
    """A table, through the log, so that train.log has it too."""
    if not console.encoding.startswith("utf"):
        table.box = table.box and box.ASCII2
    text = Console(file=io.StringIO(), width=100)
    text.print(table)
    output = text.file
    assert isinstance(output, io.StringIO)
    for line in output.getvalue().rstrip().splitlines():
        log.info(line.rstrip())
