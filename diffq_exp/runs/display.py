"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere, and a table at the end."""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..results.headline import Headline

log = logging.getLogger("diffq_exp")


class RunConsole(Console):
    """A run goes on, in silence, when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = RunConsole()


class ConsoleHandler(logging.Handler):
    """Plain lines on standard output, drawn above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode(console.encoding, "replace").decode(console.encoding)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def log_to_console() -> None:
    """Send the log's messages to the terminal; what is below INFO goes to train.log alone."""
    if not any(isinstance(handler, ConsoleHandler) for handler in log.handlers):
        log.addHandler(ConsoleHandler(logging.INFO))
    log.setLevel(logging.DEBUG)
    log.propagate = False


def log_to_nobody() -> None:
    """Leave the log to train.log alone."""
    log.setLevel(logging.DEBUG)
    log.propagate = False


class FileLog:
    """Inside its `with`, the log goes to a file too, with times."""

    def __init__(self, path: Path) -> None:
        self.handler = logging.FileHandler(path, delay=True)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def __enter__(self) -> FileLog:
        log.addHandler(self.handler)
        return self

    def __exit__(self, *exc: Any) -> None:
        log.removeHandler(self.handler)
        self.handler.close()


class Display:
    """Listens to a trainer: a bar within each epoch, on terminals, and a line after it."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
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
        self.shows(Headline(), "examples")

    def shows(self, headline: Headline, unit: str) -> None:
        """Show this score beside the loss; unit: what an example is, in the plural."""
        self.headline, self.unit = headline, unit

    def started(self, run_id: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            log.info(f"goes on after epoch {len(rows)} of {self.epochs}")
        self._bar.start()

    def step(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        name = self.headline.name
        text = f"loss {means.get('loss', 0):.4f}  {name} {means.get(name, 0):.4f}{self._size}"
        place = epoch - 1 + done / steps
        self._bar.update(self._task, completed=place, description=f"epoch {epoch}/{self.epochs}", text=text)

    def epoch(self, row: dict[str, Any]) -> None:
        self._size = f"  {row['size_mb']['true']:.4f} MB"
        log.info(epoch_line(row, self.epochs, self.headline, self.unit))

    def close(self) -> None:
        self._bar.stop()


def epoch_line(row: dict[str, Any], epochs: int, headline: Headline, unit: str) -> str:
    """One row of metrics as a line; train and val are the headline."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['train']['loss']:.4f}"]
    parts.append(f"train {row['train'].get(headline.name, math.nan):.4f}")
    if "val" in row:
        parts.append(f"val {row['val'].get(headline.name, math.nan):.4f}")
    parts.append(f"{row['size_mb']['true']:.4f} MB")
    if "bits" in row:
        parts.append(f"{row['bits']['mean']:.2f} bits")
    parts.append(f"{row['examples_per_second']:,.0f} {unit}/s")
    return "  ".join(parts)


def show_result(result: dict[str, Any], folder: Path) -> None:
    """The table at the end of a run: float32 against stored, bits per layer, and where everything lies."""
    sizes, test, headline = result["size_mb"], result["test"], Headline.from_json(result.get("headline"))
    table = Table(title=f"{folder.name}: {result['status']}", title_justify="left")
    for column in ("", headline.label, "MB", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    float32 = test.get(f"float32_{headline.name}")
    table.add_row("float32 weights", _number(float32), f"{sizes['float32']:.4f}", "1.0")
    table.add_row(
        "model.safetensors",
        _number(test.get(headline.name)),
        f"{sizes['file']:.4f}",
        f"{sizes['float32'] / sizes['file']:.1f}",
    )
    _print(table)
    if layers := result.get("bits", {}).get("layers"):
        bits = Table("layer", "mean bits", box=None, title_justify="left")
        for name, mean in layers.items():
            bits.add_row(name, f"{mean:.2f}")
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
