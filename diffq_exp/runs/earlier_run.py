"""The earlier run of a folder, which restart=true sets aside until the new run is finished.

The process may be killed between any two operations, so a run is gathered in .aside/, which one renaming
makes .earlier/. Whoever enters the folder next puts back what is still in .aside/. A finished run stays there until
another is finished, however often the new one begins, and comes back where the new one fails before it has trained.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..results.records import known_record
from ..results.run_files import ASIDE, CHECKPOINT, EARLIER, LEFT_BY_A_RUN, LOG, MODEL

FINISHED, TRAINED, BEGUN = 3, 2, 1  # how far a run came


def set_aside(folder: Path) -> None:
    """Empty the folder for a new run. What is in it goes to .earlier/, unless a run that went further is there."""
    if _worth(folder / EARLIER) > _worth(folder):
        _clear(folder)
    else:
        drop_earlier(folder)
        _gather(folder)
    if (folder / LOG).exists():  # a job of a sweep has it open already
        os.truncate(folder / LOG, 0)


def put_back(folder: Path) -> None:
    """Move what is in .aside/ to where it was, its result last."""
    if not (folder / ASIDE).is_dir():
        return
    for name in reversed(LEFT_BY_A_RUN):
        if (folder / ASIDE / name).exists() and not (folder / name).exists():
            (folder / ASIDE / name).rename(folder / name)
    shutil.rmtree(folder / ASIDE)


def bring_back(folder: Path) -> bool:
    """Undo `set_aside`, where the new run has not trained and the earlier one came further; -> whether it is back.

    What the new one has logged stands at the end of the earlier log.
    """
    here = _worth(folder)
    if here >= TRAINED or _worth(folder / EARLIER) <= here:
        return False
    if (folder / LOG).exists():
        with open(folder / EARLIER / LOG, "ab") as log:
            log.write((folder / LOG).read_bytes())
        (folder / LOG).unlink()
    _clear(folder)
    (folder / EARLIER).rename(folder / ASIDE)
    put_back(folder)
    return True


def drop_earlier(folder: Path) -> None:
    """Delete what `set_aside` kept."""
    if (folder / EARLIER).is_dir():
        going = folder / f"{EARLIER}.partial"
        (folder / EARLIER).rename(going)
        shutil.rmtree(going, ignore_errors=True)


def _worth(folder: Path) -> int:
    """How far a run came; 0 where there is none."""
    if known_record(folder).status == "finished" and (folder / MODEL).is_file():
        return FINISHED
    if (folder / CHECKPOINT).exists():
        return TRAINED
    return BEGUN if any((folder / name).exists() for name in LEFT_BY_A_RUN if name != LOG) else 0


def _gather(folder: Path) -> None:
    if not _worth(folder):
        return
    (folder / ASIDE).mkdir()
    for name in LEFT_BY_A_RUN:
        if name == LOG and (folder / LOG).exists():
            shutil.copy2(folder / LOG, folder / ASIDE / LOG)
        elif (folder / name).exists():
            (folder / name).rename(folder / ASIDE / name)
    (folder / ASIDE).rename(folder / EARLIER)


def _clear(folder: Path) -> None:
    """Delete what a run left, its result last; its log stays."""
    for name in reversed(LEFT_BY_A_RUN):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif name != LOG:
            path.unlink(missing_ok=True)
