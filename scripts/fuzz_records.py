"""Damage the records of runs at random, and see that a report of them goes well.

    python scripts/fuzz_records.py [--records 3000] [--seed 0] [--pages FOLDER]

Each report is of four good runs and of several whose record, rows, sensitivity or configuration is damaged: values
of other types, sizes and encodings, entries that are renamed or gone, folders and pipes in the place of files
(tests/helpers/record_damage.py). All good runs are reported as without the others, each bad one is in it or named,
what is written is inert, and it takes at most 2 seconds of a processor more than a report of the good runs. Where a
group fails, its members are tried alone; those that fail are printed with their seeds, and the exit code is 1.
--pages keeps some pages, to be looked at in a browser.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from helpers.record_reports import Result, faults

GROUP = 25


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pages", type=Path, help="where every twentieth page is kept")
    args = parser.parse_args(argv)
    kinds, bad, slowest, began = Counter[str](), list[str](), 0.0, time.monotonic()
    _tried([])  # with the imports
    usual = min(_tried([]).seconds for _ in range(2))
    for first in range(args.seed, args.seed + args.records, GROUP):
        seeds = range(first, min(first + GROUP, args.seed + args.records))
        pages = args.pages if first // GROUP % 20 == 0 else None
        result = _tried(seeds, usual, pages)
        slowest = max(slowest, result.seconds)
        kinds.update(result.damage)
        if result.found:
            bad += [f"{seed}: {line}" for seed in seeds for line in _tried([seed], usual).found] or result.found
    for line in bad:
        print(line)
    print(
        f"{kinds.total()} damaged records, {len(kinds)} kinds, {len(bad)} failures; a report of {GROUP} took",
        end=" ",
    )
    print(
        f"at most {slowest:.2f} s more than one of good runs, {usual:.2f} s; all {time.monotonic() - began:.0f} s"
    )
    return 1 if bad else 0


def _tried(seeds: Sequence[int], usual: float = 0.0, pages: Path | None = None) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        result = faults(Path(folder), seeds, usual)
        if pages is not None and (page := Path(folder) / "out" / "index.html").is_file():
            pages.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, pages / f"{seeds[0]:06}.html")
        return result


if __name__ == "__main__":
    sys.exit(main())
