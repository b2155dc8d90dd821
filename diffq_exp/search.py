"""Entry point: python -m diffq_exp.search max_drop=0.005 [probes=10] [--seeds N] [key=value ...]

The smallest file whose validation score is within max_drop of the float32 run of the same configuration. Each probe
is an ordinary run of diffq_exp.train with another target_ratio; the float32 run is trained first, if it is missing.
The same command goes on where it stopped, since finished runs are not done again. Never imports torch.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .command.check import check
from .command.signature import float32_config, float32_overrides, run_name
from .common.units import MB
from .results.headline import PERCENT
from .results.records import RunRecord, read_record
from .sweeps.bisection import search_ratios

FOUND, NOTHING, MISTAKE, SIGNAL = 0, 1, 2, 128  # exit codes
PROBES = 10
NO_RUN = ("-m", "--multirun", "--cfg", "--info", "--hydra-help", "--help", "-h")
STEERED = ("target_mb", "target_ratio", "penalty")  # what the search chooses


class Mistake(ValueError):
    """What was typed cannot be searched."""


@dataclass(frozen=True)
class Probe:
    """A run at a ratio. drop: of its validation score from float32's, in units of the score."""

    ratio: float
    folder: Path
    record: RunRecord
    drop: float

    def good(self, max_drop: float) -> bool:
        return bool(self.record.target_met) and self.drop <= max_drop + 1e-9


def main(argv: Sequence[str] | None = None) -> int:
    """-> exit code: 0, 1 where no probe is good enough, 2 for a mistake, 128+n where a signal stopped a run."""
    args, overrides = _parser().parse_known_intermixed_args(argv)
    try:
        max_drop, probes, overrides = _own_words(overrides)
        return _search(max_drop, probes, overrides, args.seeds)
    except (ValueError, OSError) as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE
    except _Stopped as stopped:
        return int(stopped.args[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m diffq_exp.search", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="confirm the best with N seeds")
    return parser


def _own_words(words: Sequence[str]) -> tuple[float, int, list[str]]:
    """max_drop, probes, and the overrides of a run. Raises: Mistake naming the word."""
    own = {"max_drop": "", "probes": str(PROBES)}
    overrides = []
    for word in words:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = value
        elif key in STEERED or key == "dry_run" or word in NO_RUN or key.startswith("hydra") or _sweeps(value):
            raise Mistake(f"{word}: a search makes its own runs, and chooses their targets")
        else:
            overrides.append(word)
    if not own["max_drop"]:
        raise Mistake("max_drop: has no default; give max_drop=..., 0.005 say")
    max_drop, probes = _number("max_drop", own["max_drop"]), _number("probes", own["probes"])
    if not 0 < max_drop < 1:
        raise Mistake(f"max_drop={max_drop:g}: a number > 0 and < 1 is allowed")
    if probes < 1 or probes != int(probes):
        raise Mistake(f"probes={probes:g}: a whole number >= 1 is allowed")
    return max_drop, int(probes), overrides


def _sweeps(value: str) -> bool:
    """Whether a value stands for several runs."""
    return "," in value and not value.startswith(("[", "{", '"', "'"))


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Mistake(f"{key}={text}: a number is allowed")
    return number


def _search(max_drop: float, probes: int, overrides: list[str], seeds: int) -> int:
    plan = check([*overrides, "target_ratio=2"])
    if plan.errors:
        raise Mistake("\nerror: ".join(plan.errors))
    if plan.multirun:
        raise Mistake("a sweep: a search makes its own runs")
    cfg, folder = plan.jobs[0].cfg, plan.jobs[0].folder
    if 0 in (cfg.dataset.get("val_fraction"), cfg.dataset.get("val_share")):
        raise Mistake("val_fraction=0: a search needs a validation part")
    plain = folder.parent / run_name(float32_config(cfg), {**cfg.hydra.runtime.choices, "quantizer": "none"})
    reference = _run(float32_overrides(cfg, overrides), plain)
    if reference is None or reference.val.get(reference.compared_by.name) is None:
        raise Mistake(f"{plain}: the float32 run has no validation score to compare with")
    _warn_of_few_examples(reference, max_drop)
    tried: list[Probe] = []
    ratios = search_ratios(probes)
    ratio: float | None = next(ratios)
    while ratio is not None:
        if (probe := _probe(overrides, ratio, reference)) is not None:
            tried.append(probe)
        try:
            ratio = ratios.send(probe is not None and probe.good(max_drop))
        except StopIteration:
            ratio = None
    good = [probe for probe in tried if probe.good(max_drop)]
    _show(tried, good, reference, max_drop)
    if not good:
        return NOTHING
    return _confirm(overrides, min(good, key=_bytes), seeds)


def _warn_of_few_examples(reference: RunRecord, max_drop: float) -> None:
    """Where one example of the validation part is worth more than the drop."""
    count = reference.data.get("val")
    if reference.compared_by.unit == PERCENT and isinstance(count, int) and count * max_drop < 1:
        print(
            f"warning: max_drop={max_drop:g}: one of the {count} examples of the validation part is worth "
            f"{1 / count:.2g}; a larger val_fraction would tell more",
            file=sys.stderr,
        )


class _Stopped(Exception):
    """A signal stopped a run; its argument is the exit code."""


def _run(overrides: list[str], folder: Path) -> RunRecord | None:
    """Do a run, or find it done; -> its record, None where it did not finish. Raises: _Stopped."""
    code = subprocess.run([sys.executable, "-m", "diffq_exp.train", *overrides]).returncode
    if code < 0 or code >= SIGNAL:
        raise _Stopped(code if code > 0 else SIGNAL - code)
    record = read_record(folder)
    return record if code == 0 and record.status == "finished" else None


def _probe(overrides: list[str], ratio: float, reference: RunRecord) -> Probe | None:
    """The run at a ratio; None where it was refused, as too small, failed, or has no score."""
    words = [*overrides, f"target_ratio={ratio:g}"]
    folder = check(words).jobs[0].folder
    record = _run(words, folder)
    if record is None:
        return None
    headline = reference.compared_by
    before, after = (one.val.get(headline.name) for one in (reference, record))
    if before is None or after is None or record.score is None:
        return None
    return Probe(ratio, folder, record, headline.goodness(before) - headline.goodness(after))


def _bytes(probe: Probe) -> float:
    return float(probe.record.size_mb["file"]) * MB


def _show(tried: list[Probe], good: list[Probe], reference: RunRecord, max_drop: float) -> None:
    """A line for each probe, by size, and the best of them."""
    headline = reference.compared_by
    print(f"\nfloat32: validation {headline.label} {reference.val[headline.name]:.4f}; allowed drop {max_drop:g}")
    print(f"{'target_ratio':>12} {'bytes':>11} {'validation':>10} {'drop':>8} {'test':>8}")
    for probe in sorted(tried, key=_bytes):
        val, test = probe.record.val[headline.name], probe.record.score
        mark = "" if probe in good else "  too much" if probe.record.target_met else "  target not met"
        print(f"{probe.ratio:>12g} {_bytes(probe):>11,.0f} {val:>10.4f} {probe.drop:>8.4f} {test:>8.4f}{mark}")
    if good:
        best = min(good, key=_bytes)
        print(f"smallest: {_bytes(best):,.0f} bytes, target_ratio={best.ratio:g}, in {best.folder}")
    else:
        print("no probe is within the allowed drop")


def _confirm(overrides: list[str], best: Probe, seeds: int) -> int:
    """Runs of other seeds at the best ratio, and the mean of all."""
    if seeds < 2:
        return FOUND
    records = []
    for seed in range(seeds):
        words = [*(word for word in overrides if not word.startswith("seed=")), f"target_ratio={best.ratio:g}"]
        words.append(f"seed={seed}")
        if (record := _run(words, check(words).jobs[0].folder)) is not None:
            records.append(record)
    scores, sizes = [float(one.score or 0.0) for one in records], [one.size_mb["file"] * MB for one in records]
    if not records:
        return NOTHING
    label = best.record.compared_by.label
    print(f"\n{len(records)} seeds: test {label} {sum(scores) / len(scores):.4f}", end=" ")
    print(f"({min(scores):.4f} to {max(scores):.4f}), {sum(sizes) / len(sizes):,.0f} bytes")
    return FOUND


if __name__ == "__main__":
    sys.exit(main())
