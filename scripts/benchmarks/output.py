"""What is written after each part, so that none is lost: benchmark.json, benchmark.md and the growth's picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffq_exp.common.files import replacing, write_json
from diffq_exp.runs.machine import describe_machine

from .common import SKIPPED, Context, Part, Row
from .growth_plot import draw

BUSY = 0.5  # load average, of the last minute, above which figures are not to be trusted
PICTURE = "growth.svg"
MET = {True: "yes", False: "**no**", None: ""}


def conditions(context: Context) -> dict[str, Any]:
    """Where and when: asked at the start, before the benchmark itself is load."""
    machine = describe_machine(context.device)
    machine["versions"]["diffq"] = version("diffq") if context.diffq else None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {**machine, "date": now, "load_average": load, "quick": context.quick}


def write(folder: Path, found: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """Write all files of what is there so far; -> the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: asdict(part) for name, part in parts.items()}
    write_json(folder / "benchmark.json", {**found, "parts": named})
    if "growth" in parts:
        draw(parts["growth"].data, folder / PICTURE)
    text = markdown(found, parts)
    with replacing(folder / "benchmark.md") as file:
        file.write(text.encode())
    return text


def markdown(found: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """Conditions, warnings, then a table and the notes of each part."""
    blocks = ["# Benchmark", _conditions_text(found), *_warnings(found)]
    blocks.append(
        "Ratios are to the plain float32 network in the same round: median (quartiles). Lower is better where "
        "the goal is an upper bound."
    )
    for name, part in parts.items():
        blocks += [f"## {name}", _table(part.rows, found["versions"]["diffq"])]
        if name == "growth":
            blocks.append(f"![Milliseconds added to a step]({PICTURE})")
        blocks += part.notes
    if found["versions"]["diffq"] is None:
        blocks.append(f"diffq: {SKIPPED}, not installed (`pip install diffq==0.2.4`).")
    return "\n\n".join(blocks) + "\n"


def _conditions_text(found: Mapping[str, Any]) -> str:
    hardware, versions = found["hardware"], found["versions"]
    commit = f"{(found['git_commit'] or 'no commit')[:10]}{' with changes' if found['git_dirty'] else ''}"
    load = "unknown" if found["load_average"] is None else f"{found['load_average']:.2f}"
    lines = [
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads"
        + (f"; {hardware['gpu']}" if found["device"] == "cuda" else ""),
        ", ".join(f"{name} {one}" for name, one in versions.items() if one),
        f"{found['date']}, commit {commit}, load average at the start {load}, {found['seconds']:.0f} s in all",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _warnings(found: Mapping[str, Any]) -> list[str]:
    warnings = []
    if found["quick"]:
        warnings.append(
            "**Warning: --quick, tiny sizes: this shows that all parts work, its figures mean nothing.**"
        )
    load = found["load_average"]
    if load is not None and load > BUSY:
        warnings.append(
            f"**Warning: the load average was {load:.2f} at the start, above {BUSY}: other work ran beside "
            "this; repeat it on a quiet machine.**"
        )
    return warnings


def _table(rows: list[Row], diffq: str | None) -> str:
    beside = any(row.diffq for row in rows)
    head = ["what", "here", *([f"diffq {diffq or ''}".strip()] if beside else []), "goal", "met"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        lines.append([row.what, row.here, *([row.diffq] if beside else []), row.goal, MET[row.met]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
