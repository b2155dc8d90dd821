"""The smallest file whose validation score is within a drop of the float32 run of the same configuration.

Each probe is an ordinary run with another target_ratio; the float32 run is trained first, if it is missing. Runs of
the same settings that are finished already, with whatever target or penalty, are known from the start: the search
begins between the smallest file that is good enough and the largest smaller one that is not. So the same search
goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..command.check import check
from ..command.compose import Job
from ..command.float32_run import float32_config, float32_overrides
from ..command.ranges import shown
from ..command.signature import record_of, run_name
from ..common.units import MB
from ..results.discovery import find_runs
from ..results.headline import PERCENT
from ..results.records import RunRecord
from .bisection import LEAST, MOST, search_ratios
from .one_run import do_run

FOUND, NOTHING = 0, 1  # exit codes
RATIO = "target_ratio"
STEERED = (RATIO, "target_mb", "penalty")  # what a search chooses


@dataclass(frozen=True)
class Probe:
    """A run. setting: its target or penalty, as it is typed. ratio: float32 size over the size that it asks for, or
    has. drop: of its validation score from float32's, in units of the score."""

    setting: str
    ratio: float
    folder: Path
    record: RunRecord
    drop: float

    def good(self, max_drop: float) -> bool:
        return self.record.target_met is not False and self.drop <= max_drop + 1e-9

    @property
    def bytes(self) -> float:
        return float(self.record.size_mb["file"]) * MB


def find_smallest(overrides: list[str], first: Job, max_drop: float, probes: int, seeds: int) -> int:
    """-> exit code: 0, or 1 where no probe is good enough. first: a job of these overrides.

    Raises: ValueError where the float32 run has no validation score; one_run.Stopped.
    """
    cfg = first.cfg
    plain = first.folder.parent / run_name(float32_config(cfg), {**cfg.hydra.runtime.choices, "quantizer": "none"})
    reference = _finished(float32_overrides(cfg, overrides), plain)
    if reference is None or reference.val.get(reference.compared_by.name) is None:
        raise ValueError(f"{plain}: the float32 run has no validation score to compare with")
    warn_of_few_examples(reference, max_drop)
    known = list(_known(first, reference))
    tried = [*known, *_probes(overrides, reference, max_drop, probes, known)]
    good = [probe for probe in tried if probe.good(max_drop)]
    _show(tried, good, reference, max_drop)
    if not good:
        return NOTHING
    return _confirm(overrides, min(good, key=lambda probe: probe.bytes), seeds)


def _finished(overrides: list[str], folder: Path) -> RunRecord | None:
    code, record = do_run(overrides, folder)
    return record if code == 0 and record.status == "finished" else None


def _known(first: Job, reference: RunRecord) -> Iterator[Probe]:
    """Finished runs beside the float32 run, on the same data, that differ from a probe in STEERED only."""
    own = record_of(first.cfg, first.cfg.hydra.runtime.choices, ())
    task = own.choices, _without_steered(own.config)
    for run in find_runs([first.folder.parent]):
        if run.status != "finished" or (run.choices, _without_steered(run.config)) != task:
            continue
        setting = next((key for key in STEERED if key in run.config), None)
        size, float32 = run.value("target_mb") or run.size("file"), run.size("float32")
        drop = _drop(run.record, reference)
        same_data = run.record.data.get("digest") == reference.data.get("digest")
        if setting is not None and same_data and drop is not None and size and float32:
            value = run.config[setting]
            ratio = value if setting == RATIO else float32 / size
            yield Probe(f"{setting}={shown(value)}", max(ratio, LEAST), run.folder, run.record, drop)


def _without_steered(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in STEERED}


def _drop(record: RunRecord, reference: RunRecord) -> float | None:
    """Of the validation score; None where a run has no scores."""
    headline = reference.compared_by
    before, after = (one.val.get(headline.name) for one in (reference, record))
    if before is None or after is None or record.score is None:
        return None
    return headline.goodness(before) - headline.goodness(after)


def _probes(
    overrides: list[str], reference: RunRecord, max_drop: float, most: int, known: Sequence[Probe]
) -> Iterator[Probe]:
    """The probes that a search makes, beginning between what is known; known ones of a ratio are some of `most`."""
    good = max((probe.ratio for probe in known if probe.good(max_drop)), default=LEAST)
    bad = min((probe.ratio for probe in known if not probe.good(max_drop) and probe.ratio > good), default=MOST)
    made = sum(probe.setting.startswith(RATIO) for probe in known)
    ratios = search_ratios(most - made, good, bad)
    ratio = next(ratios, None)
    while ratio is not None:
        if (probe := _probe(overrides, ratio, reference)) is not None:
            yield probe
        try:
            ratio = ratios.send(probe is not None and probe.good(max_drop))
        except StopIteration:
            ratio = None


def _probe(overrides: list[str], ratio: float, reference: RunRecord) -> Probe | None:
    """The run at a ratio; None where it was refused, as too small, failed, or has no score."""
    setting = f"{RATIO}={ratio:g}"
    words = [*overrides, setting]
    folder = check(words).jobs[0].folder
    record = _finished(words, folder)
    if record is None or (drop := _drop(record, reference)) is None:
        return None
    return Probe(setting, ratio, folder, record, drop)


def warn_of_few_examples(reference: RunRecord, max_drop: float) -> None:
    """Where one example of the validation part is worth more than the drop."""
    count = reference.data.get("val")
    if reference.compared_by.unit == PERCENT and isinstance(count, int) and count * max_drop < 1:
        print(
            f"warning: max_drop={max_drop:g}: one of the {count} examples of the validation part is worth "
            f"{1 / count:.2g}; a larger val_fraction would tell more",
            file=sys.stderr,
        )


def _show(tried: Sequence[Probe], good: Sequence[Probe], reference: RunRecord, max_drop: float) -> None:
    """A line for each probe, by size, and the best of them."""
    headline = reference.compared_by
    print(f"\nfloat32: validation {headline.label} {reference.val[headline.name]:.4f}; allowed drop {max_drop:g}")
    print(f"{'typed':>18} {'bytes':>11} {'validation':>10} {'drop':>8} {'test':>8}")
    for probe in sorted(tried, key=lambda probe: probe.bytes):
        val, test = probe.record.val[headline.name], probe.record.score
        mark = "" if probe in good else "  target not met" if probe.record.target_met is False else "  too much"
        print(f"{probe.setting:>18} {probe.bytes:>11,.0f} {val:>10.4f} {probe.drop:>8.4f} {test:>8.4f}{mark}")
    if good:
        best = min(good, key=lambda probe: probe.bytes)
        print(f"smallest: {best.bytes:,.0f} bytes, {best.setting}, in {best.folder}")
    else:
        print("no probe is within the allowed drop")


def _confirm(overrides: list[str], best: Probe, seeds: int) -> int:
    """Runs of other seeds at the best setting, and the mean of all."""
    if seeds < 2:
        return FOUND
    records = []
    for seed in range(seeds):
        words = [*(word for word in overrides if not word.startswith("seed=")), best.setting]
        words.append(f"seed={seed}")
        if (record := _finished(words, check(words).jobs[0].folder)) is not None:
            records.append(record)
    if not records:
        return NOTHING
    scores, sizes = [float(one.score or 0.0) for one in records], [one.size_mb["file"] * MB for one in records]
    label = best.record.compared_by.label
    print(f"\n{len(records)} seeds: test {label} {sum(scores) / len(scores):.4f}", end=" ")
    print(f"({min(scores):.4f} to {max(scores):.4f}), {sum(sizes) / len(sizes):,.0f} bytes")
    return FOUND
