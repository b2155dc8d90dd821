"""Housekeeping in outputs/: a list of every run, and the deletion of runs that are of no more use.

A folder is deleted only after a yes, only if it is a run's and holds no other files, and only while this process
has its lock. Its result.json goes last, so that a deletion that was cut short can be done again. Where a run was to
be done again and did not finish, the finished one that is set aside in it stays.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from ..common.files import locks_explained
from ..common.units import MB
from .discovery import MISSING, Run
from .headline import Headline
from .points import shown, varying
from .records import RunRecord, known_record, read_record
from .run_files import ASIDE, EARLIER, LEFT_BY_A_RUN, LOCK, RESULT
from .sweep_records import SWEEPS, read_sweep
from .tables import NONE, Table, counts, megabytes

OF_A_RUN = {*LEFT_BY_A_RUN, LOCK, EARLIER, ASIDE}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def list_table(runs: Sequence[Run]) -> Table:
    """Every run in a line, with the values in which it differs from others of the same data, network and quantizer.

    Where runs have several headlines, each score stands with its unit.
    """
    axes = {run.headline.axis for run in runs if run.score is not None}
    score = "score" if len(axes) > 1 else next(iter(axes), Headline().axis)
    header = ("folder", "values", "status", score, "MB", "seconds", "MB on disk", "age", "commit")
    values = distinctions(runs)
    rows = [_line(run, values[run.folder], with_unit=len(axes) > 1) for run in runs]
    return Table(f"{len(runs)} runs: {counts(runs)}", header, rows, left=3)


def distinctions(runs: Iterable[Run]) -> dict[Path, str]:
    """{folder: "bits=3 seed=0"}: where runs differ whose folders have the same data, network and quantizer in their
    names."""
    alike: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        alike[tuple(map(run.choices.get, ("dataset", "model", "quantizer")))].append(run)
    texts = {}
    for group in alike.values():
        names = [name for name in varying(group) if name != "init_from"]
        for run in group:
            texts[run.folder] = " ".join(f"{name}={shown(run.own[name])}" for name in names if name in run.own)
    return texts


def leftovers(root: Path) -> list[Run]:
    """Folders that a sweep's record names and that hold no result: their job was killed before it began."""
    found = {}
    for record in sorted((root / SWEEPS).glob("*.json")):
        try:
            jobs = read_sweep(root, record.stem).jobs
        except ValueError:
            continue
        for job in jobs:
            if job.folder.is_dir() and job.folder.name.endswith(f"-{job.signature}"):
                found[job.folder] = job
    return [job for folder, job in found.items() if not (folder / RESULT).exists()]


def kinds(runs: Iterable[Run], head: str | None) -> dict[str, list[Run]]:
    """{"unfinished", "failed", "superseded": the runs that may be cleared away}. head: the checkout's commit."""
    wanted: dict[str, list[Run]] = {"unfinished": [], "failed": [], "superseded": []}
    for run in runs:
        if not (run.signature and run.folder.is_dir()):
            continue
        if run.status in ("interrupted", "killed", MISSING):
            wanted["unfinished"].append(run)
        elif run.status in ("failed", "diverged"):
            wanted["failed"].append(run)
        elif run.status == "finished" and head is not None and run.record.git_commit not in (None, head):
            wanted["superseded"].append(run)
    return wanted


def prune(runs: Iterable[Run], head: str | None, ask: Callable[[str], bool], say: Callable[[str], None]) -> int:
    """List each kind, ask, and delete after a yes; -> bytes that were freed."""
    freed = 0
    for kind, found in kinds(runs, head).items():
        foreign = {run.folder: _why_kept(run.folder) for run in found}
        for folder, why in foreign.items():
            if why:
                say(f"kept: {folder} ({why})")
        sizes = {run.folder: bytes_below(run.folder) for run in found if not foreign[run.folder]}
        if not sizes:
            say(f"no {kind} runs to delete")
            continue
        for folder, size in sizes.items():
            say(f"  {folder}  {_mb(size)} MB")
        if ask(f"delete {len(sizes)} {kind} runs, {_mb(sum(sizes.values()))} MB? [y/N] "):
            freed += sum(_delete(run, say) for run in found if run.folder in sizes)
    say(f"{_mb(freed)} MB freed")
    return freed


def bytes_below(folder: Path) -> int:
    """Of the files below a folder; links count for themselves."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def _delete(run: Run, say: Callable[[str], None]) -> int:
    """Delete a run's folder if no process works in it and its record has not changed; -> bytes."""
    folder = run.folder
    try:
        with locks_explained(folder), FileLock(folder / LOCK, timeout=0):
            if read_record(folder) != _written(run) or _why_kept(folder):
                say(f"kept: {folder} (it changed in the meantime)")
                return 0
            size = bytes_below(folder)
            for path in sorted(folder.iterdir(), key=lambda path: (path.name == RESULT, path.name)):
                if path.name != LOCK:
                    _remove(path)
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()
    except Timeout:
        say(f"kept: {folder} (another process is at work on it)")
        return 0
    except (ValueError, OSError) as error:
        say(f"kept in part: {folder} ({error})")
        return 0
    return size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _written(run: Run) -> RunRecord:
    """The record that stands in the folder of an unchanged run."""
    return RunRecord() if run.status == MISSING else run.record


def _why_kept(folder: Path) -> str:
    """Why a folder must stay, or ""."""
    if folder.is_symlink():
        return "a link"
    finished = [place for place in ("", EARLIER, ASIDE) if known_record(folder / place).status == "finished"]
    if any(finished[:1]):
        return f"the finished run that restart=true has set aside is in its {finished[0]}"
    others = [path.name for path in folder.iterdir() if path.name not in OF_A_RUN and path.suffix != ".partial"]
    return f"it holds files that no run leaves: {', '.join(sorted(others)[:3])}" if others else ""


def _line(run: Run, values: str, with_unit: bool) -> list[str]:
    here = run.folder.is_dir()
    commit = (run.record.git_commit or "")[:7] + "*" * bool(run.record.git_dirty)
    seconds = run.record.seconds
    unit = f" {run.headline.suffix}" if with_unit and run.score is not None else ""
    return [
        run.folder.as_posix(),
        values or NONE,
        run.status,
        run.headline.text(run.score) + unit,
        megabytes(run.size("file")),
        NONE if seconds is None else f"{seconds:.1f}",
        _mb(bytes_below(run.folder)) if here else NONE,
        _age(run.folder) if here else NONE,
        commit or NONE,
    ]


def _age(folder: Path) -> str:
    """Since the result was written, or the folder."""
    record = folder / RESULT
    seconds = max(0.0, time.time() - (record if record.exists() else folder).stat().st_mtime)
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _mb(count: int) -> str:
    return f"{count / MB:.1f}"
