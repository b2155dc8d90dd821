"""Where the time of one step goes on the CPU: operators by their own time, plain and quantized."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.profiler import ProfilerActivity, profile

from .common import Context, Part, Row
from .steps import BATCH_32, loss_on, network, sized
from .variants import HERE, PLAIN, Trainee, Variant

TOP = 12
STEPS = 3


def profile_step(context: Context) -> Part:
    """No rows with goals: a table for each of plain, and ours with groups of 8 and of 1."""
    context.say("profile of a step")
    variants = (Variant(PLAIN), Variant(HERE, group_size=8), Variant(HERE, group_size=1))
    tables = {variant.name: operators(context, variant) for variant in variants}
    notes = [_markdown(name, table) for name, table in tables.items()]
    rows = [
        Row(f"profile: a step of {name}, of all operators' own time", f"{table['total_ms']:.0f} ms")
        for name, table in tables.items()
    ]
    return Part(rows, tables, notes)


def operators(context: Context, variant: Variant) -> dict[str, Any]:
    """{"total_ms", "operators": [{"name", "ms", "share", "calls"}]} of a step, by self time."""
    setting = sized(context, replace(BATCH_32, goals={}))
    base, loss_of = network(setting, context.device), loss_on(setting, context.device)
    trainee = Trainee(variant, base, loss_of, context.device)
    trainee.timed(1 if context.quick else 2)
    for _ in range(2):  # the first is not looked at: the profiler itself comes in
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            trainee.timed(STEPS)
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    top = sorted(events, key=lambda event: -event.self_cpu_time_total)[:TOP]
    listed = [
        {
            "name": event.key,
            "ms": event.self_cpu_time_total / STEPS / 1e3,
            "share": event.self_cpu_time_total / total,
            "calls": event.count // STEPS,
        }
        for event in top
    ]
    return {"total_ms": total / STEPS / 1e3, "operators": listed}


def _markdown(name: str, table: dict[str, Any]) -> str:
    lines = [f"**{name}**, ms of a step by operator:", "", "| operator | ms | share | calls |", "|---|---|---|---|"]
    lines += [
        f"| `{one['name']}` | {one['ms']:.1f} | {100 * one['share']:.1f} % | {one['calls']} |"
        for one in table["operators"]
    ]
    return "\n".join(lines)
